//! Compares values of an `order_by` column outside of the database.
//!
//! Must not know: rows, tables.
//!
//! A reader must see the newest of the rows that wait to be written and the row in the database. Both come as text:
//! a client's RFC 3339 or Postgres' ISO style.

use super::schema::ColumnType;

/// Place of a row among the rows of its id; larger is newer. Integers as they are, times in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderKey(pub i64);

impl OrderKey {
    /// Whether values of this type can be compared here.
    pub fn supports(ty: &ColumnType) -> bool {
        use ColumnType::{BigInt, Date, Int, SmallInt, Timestamp, Timestamptz};
        matches!(ty, SmallInt | Int | BigInt | Date | Timestamp | Timestamptz)
    }

    /// Parses a value of type `ty`.
    pub fn parse(ty: &ColumnType, text: &str) -> Option<Self> {
        match ty {
            ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt => text.parse().ok().map(Self),
            ColumnType::Date => parse_date(text).map(Self),
            ColumnType::Timestamp | ColumnType::Timestamptz => parse_timestamp(text).map(Self),
            _ => None,
        }
    }
}

const DAY: i64 = 86_400_000_000;

fn infinite(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

/// `YYYY-MM-DD` or an infinity, in microseconds.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    infinite(text).or_else(|| civil_days(text)?.checked_mul(DAY))
}

/// `YYYY-MM-DD[T| ]HH:MM[:SS[.f]][Z|+HH[:MM[:SS]]]` or an infinity; without an offset it counts as UTC, which is the time
/// zone of our sessions.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    if let Some(value) = infinite(text) {
        return Some(value);
    }
    let at = text.find(['T', 't', ' '])?;
    let (date, time) = (&text[..at], &text[at + 1..]);
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (&time[..at], parse_offset(&time[at..])?),
        None => (time, 0),
    };
    civil_days(date)?.checked_mul(DAY)?.checked_add(parse_clock(clock)?)?.checked_sub(offset)
}

/// Exactly `width` digits.
fn digits(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn parse_clock(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let hour = digits(parts.next()?, 2).filter(|h| *h < 24)?;
    let minute = digits(parts.next()?, 2).filter(|m| *m < 60)?;
    let (second, micros) = match parts.next() {
        None => (0, 0),
        Some(seconds) => {
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
            // Postgres takes a leap second, as the first of the next minute.
            (digits(whole, 2).filter(|s| *s <= 60)?, parse_fraction(fraction)?)
        }
    };
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Digits after the point, rounded to microseconds as Postgres does.
fn parse_fraction(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i64 = text.parse().ok()?;
    let width = text.len() as u32;
    Some(if width <= 6 {
        value * 10_i64.pow(6 - width)
    } else {
        let unit = 10_i64.pow(width - 6);
        (value + unit / 2) / unit
    })
}

fn parse_offset(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'Z' | b'z' => return (text.len() == 1).then_some(0),
        b'-' => -1,
        _ => 1,
    };
    let text = &text[1..];
    let (hours, rest) = if text.len() == 4 && !text.contains(':') {
        (digits(text.get(..2)?, 2)?, digits(text.get(2..)?, 2)? * 60)
    } else {
        let mut parts = text.splitn(3, ':');
        let hours = digits(parts.next()?, 2)?;
        let minutes = parts.next().map_or(Some(0), |p| digits(p, 2).filter(|m| *m < 60))?;
        let seconds = parts.next().map_or(Some(0), |p| digits(p, 2).filter(|s| *s < 60))?;
        (hours, minutes * 60 + seconds)
    };
    (hours < 16).then_some(sign * (hours * 3600 + rest) * 1_000_000)
}

/// Days since 1970-01-01 of `YYYY-MM-DD` (up to six digits of year), Gregorian.
fn civil_days(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let year = parts.next().filter(|y| (4..=6).contains(&y.len())).and_then(|y| digits(y, y.len()))?;
    let month = digits(parts.next()?, 2).filter(|m| (1..=12).contains(m))?;
    let day = digits(parts.next()?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // 294,276 is the last year of a Postgres timestamp; year 0 does not exist.
    if !(1..=294_276).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    // Years start in March, so the leap day is the last: the usual days-from-civil arithmetic.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * m + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_compare_across_notations() {
        let ts = |text| OrderKey::parse(&ColumnType::Timestamptz, text);
        assert_eq!(ts("1970-01-01T00:00:00Z"), Some(OrderKey(0)));
        assert_eq!(ts("2024-02-29 12:00:00.5+02"), ts("2024-02-29T10:00:00.500000Z"));
        assert_eq!(ts("2024-02-29T10:00:00-05:30"), ts("2024-02-29T15:30Z"));
        assert_eq!(ts("2000-01-01T00:00:00Z"), Some(OrderKey(946_684_800_000_000)));
        assert_eq!(ts("2024-01-01T00:00:00.1234567Z"), ts("2024-01-01T00:00:00.123457Z"));
        assert!(
            ts("infinity") > ts("294276-12-31T23:59:59Z") && ts("-infinity") < ts("0001-01-01T00:00:00Z")
        );
        for bad in [
            "",
            "now",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00Z",
            "2024-01-01",
            "2024-01-01T24:00Z",
            "2024-1-1T0:0",
            "2024-01-01T00:00+aé1",
        ] {
            assert_eq!(ts(bad), None, "{bad}");
        }
        assert_eq!(OrderKey::parse(&ColumnType::BigInt, "-5"), Some(OrderKey(-5)));
        assert_eq!(OrderKey::parse(&ColumnType::Date, "1970-01-02"), Some(OrderKey(DAY)));
    }
}
