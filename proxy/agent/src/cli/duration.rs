//! Parses durations in Go's format, as kube-proxy's flags take them: `30s`, `1m30s`, `100ms`, `1.5h`, `0`.
//!
//! jiff's parser of friendly durations differs: it rejects `0`, `.5s`, `1.s` and `1.5h30m`, and accepts `30 s`,
//! `1s ago` and `01:02:03`.

use std::time::Duration;

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

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+0-9.a-zµ ]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn milliseconds_are_parsed_exactly(milliseconds in 0_u64..10_000_000_000) {
            prop_assert_eq!(parse(&format!("{milliseconds}ms")), Ok(Duration::from_millis(milliseconds)));
        }
    }
}
