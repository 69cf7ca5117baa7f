//! Durations as a person writes them: a whole number and one unit.
//!
//! Invariant: a parsed duration is at least one second and fits every clock that Dayfly
//! calculates with.

use std::time::Duration;

const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// A text that is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a whole number followed by `s`, `m`, `h` or `d`.
    #[error("expected a whole number with one unit of s, m, h or d, for example \"15m\"")]
    Form,
    /// Zero or below.
    #[error("a duration must be longer than zero")]
    NotPositive,
    /// Longer than a hundred years.
    #[error("the duration is too long to calculate with")]
    Overflow,
}

/// Parses `"90s"`, `"15m"`, `"36h"` or `"7d"`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let unit = text.chars().last().ok_or(DurationError::Form)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(DurationError::Form),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DurationError::Form);
    }
    if negative || digits.bytes().all(|b| b == b'0') {
        return Err(DurationError::NotPositive);
    }
    let number: u64 = digits.parse().map_err(|_| DurationError::Overflow)?;
    let total = number.checked_mul(seconds).ok_or(DurationError::Overflow)?;
    if total > SECONDS_MAX {
        return Err(DurationError::Overflow);
    }
    Ok(Duration::from_secs(total))
}

/// The shortest way to write `duration`, which has whole seconds.
pub(super) fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let whole = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, letter) = whole.unwrap_or((1, 's'));
    format!("{}{letter}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_and_written() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("15m", 900), ("36h", 129_600)] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration.as_secs(), seconds);
            assert_eq!(written(duration), text);
        }
        assert_eq!(written(parse_duration("24h").unwrap()), "1d");
        assert_eq!(written(parse_duration("007m").unwrap()), "7m");
    }

    #[test]
    fn everything_else_is_refused() {
        use DurationError::{Form, NotPositive, Overflow};
        for (text, error) in [
            ("", Form),
            ("m", Form),
            ("-m", Form),
            ("15", Form),
            ("15 m", Form),
            (" 15m", Form),
            ("15m ", Form),
            ("1.5h", Form),
            ("+5m", Form),
            ("--5m", Form),
            ("5M", Form),
            ("1h30m", Form),
            ("500ms", Form),
            ("٣m", Form),
            ("5µ", Form),
            ("0s", NotPositive),
            ("000d", NotPositive),
            ("-15m", NotPositive),
            ("36501d", Overflow),
            ("18446744073709551615d", Overflow),
            ("99999999999999999999999s", Overflow),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text:?}");
        }
    }
}
