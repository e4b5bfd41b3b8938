//! Durations in Go's format, as kube-proxy's flags and files have them: `30s`, `1m30s`, `100ms`, `1.5h`, `0`.
//!
//! jiff's parser of friendly durations differs: it rejects `0`, `.5s`, `1.s` and `1.5h30m`, and accepts `30 s`,
//! `1s ago` and `01:02:03`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration as Go has it: nanoseconds, which may be negative. Whether a setting may be negative is a matter of its
/// validation, so that all errors of a file can be named at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GoDuration(i64);

impl GoDuration {
    /// A number of nanoseconds.
    pub(crate) const fn from_nanos(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    /// A number of seconds; for constants.
    pub(crate) const fn from_secs(seconds: i64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// Whether the duration is exactly 0.
    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The duration, or `None` if it is negative.
    pub(crate) fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let nanoseconds = i64::try_from(unsigned(rest)?.as_nanos()).map_err(|_| DurationError::TooLong)?;
        Ok(Self(sign * nanoseconds))
    }
}

/// Prints it as Go does: `1h0m0s`, `1.5s`, `100ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let fraction = |f: &mut fmt::Formatter<'_>, unit: u64, name: &str| {
            let (whole, rest) = (nanoseconds / unit, nanoseconds % unit);
            match rest {
                0 => write!(f, "{whole}{name}"),
                rest => {
                    let width = unit.ilog10() as usize;
                    write!(f, "{whole}.{}{name}", format!("{rest:0width$}").trim_end_matches('0'))
                }
            }
        };
        match nanoseconds {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => fraction(f, 1_000, "µs"),
            1_000_000..1_000_000_000 => fraction(f, 1_000_000, "ms"),
            _ => {
                let seconds = nanoseconds / 1_000_000_000;
                if seconds >= 3_600 {
                    write!(f, "{}h", seconds / 3_600)?;
                }
                if seconds >= 60 {
                    write!(f, "{}m", seconds / 60 % 60)?;
                }
                let rest = Duration::from_nanos(nanoseconds % 60_000_000_000);
                match rest.subsec_nanos() {
                    0 => write!(f, "{}s", rest.as_secs()),
                    part => write!(f, "{}.{}s", rest.as_secs(), format!("{part:09}").trim_end_matches('0')),
                }
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Why a text is not a duration that a flag can take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// The text does not have the format of a duration.
    #[error("not a duration; write it like 30s, 1m30s or 100ms")]
    Syntax,
    /// The duration is less than zero.
    #[error("a duration must not be negative")]
    Negative,
    /// The duration exceeds Go's largest, about 292 years.
    #[error("too long for a duration")]
    TooLong,
}

/// Parses a duration, which must not be negative.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    if let Some(rest) = text.strip_prefix('-') {
        return if unsigned(rest)?.is_zero() { Ok(Duration::ZERO) } else { Err(DurationError::Negative) };
    }
    unsigned(text.strip_prefix('+').unwrap_or(text))
}

/// Parses a duration without a sign.
fn unsigned(text: &str) -> Result<Duration, DurationError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut rest = text;
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (amount, after) = part(rest)?;
        nanoseconds = nanoseconds.checked_add(amount).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    match i64::try_from(nanoseconds) {
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds.unsigned_abs())),
        Err(_) => Err(DurationError::TooLong),
    }
}

/// Parses one number with its unit. Returns the nanoseconds and the rest of the text.
fn part(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return Err(DurationError::Syntax),
    };
    let whole: u128 = match whole {
        "" => 0,
        whole => whole.parse().map_err(|_| DurationError::TooLong)?,
    };
    let whole = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
    let mut amount = whole;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        amount = amount.checked_add(u128::from(digit - b'0') * place).ok_or(DurationError::TooLong)?;
    }
    Ok((amount, rest))
}

/// Splits a text after its leading digits.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_go_accepts() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("100ms", 100),
            ("30s", 30_000),
            ("+30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("1h15m30.918s", 4_530_918),
            ("2000us", 2),
            ("2000µs", 2),
            ("3000000ns", 3),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn rejects_what_go_rejects() {
        for (text, error) in [
            ("", DurationError::Syntax),
            ("-", DurationError::Syntax),
            ("30", DurationError::Syntax),
            ("30 s", DurationError::Syntax),
            ("s", DurationError::Syntax),
            (".s", DurationError::Syntax),
            ("1d", DurationError::Syntax),
            ("--1s", DurationError::Syntax),
            ("-1s", DurationError::Negative),
            ("3000000h", DurationError::TooLong),
            ("99999999999999999999999999999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (100_000_000, "100ms"),
            (3_300_000_000, "3.3s"),
            (30_000_000_000, "30s"),
            (900_000_000_000, "15m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (3_605_000_000_001, "1h0m5.000000001s"),
            (-1_500_000_000, "-1.5s"),
        ] {
            assert_eq!(GoDuration::from_nanos(nanoseconds).to_string(), text);
            assert_eq!(text.parse(), Ok(GoDuration::from_nanos(nanoseconds)));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+0-9.a-zµ ]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_duration_is_read_as_it_is_printed(nanoseconds in proptest::num::i64::ANY) {
            let duration = GoDuration::from_nanos(nanoseconds);
            let text = duration.to_string();
            prop_assert!(nanoseconds == i64::MIN || text.parse() == Ok(duration), "{text}");
        }

        #[test]
        fn milliseconds_are_parsed_exactly(milliseconds in 0_u64..10_000_000_000) {
            prop_assert_eq!(parse(&format!("{milliseconds}ms")), Ok(Duration::from_millis(milliseconds)));
        }
    }
}
