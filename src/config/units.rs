//! Reads and writes durations ("500ms", "5m") and sizes ("64kb", "512mb").
//!
//! Must not know: settings, files.

use std::time::Duration;

/// Duration units, largest first, in microseconds.
const DURATIONS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Size units, largest first, in bytes: powers of 1024, as `kb`, `mb` and `gb` are in redis.conf.
const SIZES: [(&str, u64); 4] = [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10), ("b", 1)];

/// Reads "2s", "500ms", "50us", "5m", "1h", "1d" or "0". A number without a unit is refused, since nobody remembers which it is.
pub fn parse_duration(text: &str) -> Option<Duration> {
    match split(text)? {
        (0, "") => Some(Duration::ZERO),
        (number, unit) => scaled(number, unit, &DURATIONS).map(Duration::from_micros),
    }
}

/// Reads "64kb", "512mb", "1gb", "100b" or plain bytes "65536"; units in either case.
pub fn parse_size(text: &str) -> Option<usize> {
    let bytes = match split(text)? {
        (number, "") => number,
        (number, unit) => scaled(number, &unit.to_ascii_lowercase(), &SIZES)?,
    };
    usize::try_from(bytes).ok()
}

/// Writes a duration in the largest unit that is exact (to the microsecond).
pub fn format_duration(duration: Duration) -> String {
    match u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) {
        0 => "0".to_owned(),
        micros => exact(micros, &DURATIONS),
    }
}

/// Writes a size in the largest unit that is exact.
pub fn format_size(bytes: usize) -> String {
    match bytes as u64 {
        0 => "0".to_owned(),
        bytes => exact(bytes, &SIZES),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn scaled(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

fn exact(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units.iter().find(|(_, factor)| value.is_multiple_of(*factor)).unwrap_or(&("", 1));
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_unless_they_are_zero() {
        assert_eq!(parse_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration(" 500 ms "), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for wrong in
            ["", "5", "s", "-1s", "1.5s", "5 parsecs", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_count_in_powers_of_1024() {
        assert_eq!(parse_size("64kb"), Some(65_536));
        assert_eq!(parse_size("1GB"), Some(1 << 30));
        assert_eq!(parse_size("17"), Some(17));
        assert_eq!(parse_size("100b"), Some(100));
        for wrong in ["", "kb", "1tb", "-1", "1.5mb", "99999999999gb"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for millis in [0, 1, 999, 1_000, 90_000, 300_000, 3_600_000, 86_400_000, 86_400_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
        for bytes in [0, 1, 1_023, 1_024, 65_536, 1 << 20, (1 << 30) + 1, 3 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        assert_eq!(format_duration(Duration::from_secs(300)), "5m");
        assert_eq!(format_size(512 << 20), "512mb");
    }
}
