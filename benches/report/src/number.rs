//! Numbers and days as people read them.

/// A number with three digits, or with all of those before the point: `0.0912`, `9.12`, `91.2`, `12,345`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 999.5 {
        let text = format!("{size:.0}");
        let digits = text.len();
        let grouped = text.chars().enumerate().flat_map(|(index, digit)| {
            let comma = (index > 0 && (digits - index).is_multiple_of(3)).then_some(',');
            comma.into_iter().chain([digit])
        });
        return if value < 0.0 { "-".chars().chain(grouped).collect() } else { grouped.collect() };
    }
    let places = match size {
        0.0 => return "0".to_owned(),
        ..0.0001 => return format!("{value:.1e}"),
        ..0.001 => 6,
        ..0.01 => 5,
        ..0.1 => 4,
        ..0.9995 => 3,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    // Whole numbers are counts for the most part, and look like it.
    if value.fract() == 0.0 { format!("{value:.0}") } else { text }
}

/// A day in UTC as `2026-11-22`, from seconds since 1970.
pub fn date(seconds: u64) -> String {
    // Days counted from 1 March of year 0, so that a leap day ends its year; 400 years have 146,097 days.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let texts =
            [0.0, 0.000_02, 0.0912, 0.999_9, 1.0, 9.124, 91.24, 912.4, 999.7, 12_345.6, -1_234_567.0].map(number);
        assert_eq!(
            texts,
            ["0", "2.0e-5", "0.0912", "1.00", "1", "9.12", "91.2", "912", "1,000", "12,346", "-1,234,567"]
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_305_600, "2026-11-22"),
        ];
        for (seconds, day) in days {
            assert_eq!(date(seconds), day);
        }
    }
}
