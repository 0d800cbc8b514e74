//! Sums as Redis makes them for `INCRBYFLOAT`: in the 80-bit floats of its C compiler on x86-64, printed with 17 digits.
//!
//! Must not know: commands, values of keys.
//!
//! A sum in 64-bit floats, or an exact one, has other last digits than a plain Redis. Here numbers are exact integers
//! times powers of two, and each step is rounded to the 64 bits of mantissa that such a float has (ties to even).

use num_bigint::{BigInt, BigUint, Sign};

/// Bits of the mantissa.
const MANTISSA: i64 = 64;
/// Below this power of two the mantissa loses bits.
const SMALLEST: i64 = -16_445;
/// From this power of two on a number is infinite.
const LARGEST: i64 = 16_384;
/// Decimal exponents beyond this are infinite or nothing, whatever the digits are.
const DECIMAL: i64 = 20_000;
/// Longest text of a number (`MAX_LONG_DOUBLE_CHARS` of Redis).
const LONGEST: usize = 5 * 1024;

/// A number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Float {
    /// This mantissa times two to this power.
    Finite(BigInt, i64),
    /// Beyond all numbers.
    Infinite,
}

/// A number as `strtold` reads it, where Redis takes it: no blanks, no NaN, nothing that is out of range. Hexadecimal
/// floats are left out.
pub(super) fn parse(text: &[u8]) -> Option<Float> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() < LONGEST)?;
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (Sign::Minus, &text[1..]),
        b'+' => (Sign::Plus, &text[1..]),
        _ => (Sign::Plus, text),
    };
    if digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity") {
        return Some(Float::Infinite);
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        None => (digits, 0),
        Some((mantissa, exponent)) => {
            let bare = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let far = if exponent.starts_with('-') { -DECIMAL } else { DECIMAL };
            (mantissa, exponent.parse::<i64>().unwrap_or(far).clamp(-DECIMAL, DECIMAL))
        }
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let number = [whole, fraction].concat();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = BigUint::parse_bytes(number.as_bytes(), 10)?;
    if number == BigUint::ZERO {
        return Some(Float::Finite(BigInt::ZERO, 0));
    }
    let power = exponent - fraction.len() as i64;
    let ten = BigUint::from(10_u8).pow(power.unsigned_abs() as u32);
    let found = match power >= 0 {
        true => rounded(sign, number * ten, BigUint::from(1_u8), 0),
        false => rounded(sign, number, ten, 0),
    };
    match &found {
        Float::Infinite => None,
        Float::Finite(mantissa, _) if mantissa.sign() == Sign::NoSign => None,
        Float::Finite(..) => Some(found),
    }
}

/// `numerator / denominator * 2^power`, rounded.
fn rounded(sign: Sign, numerator: BigUint, denominator: BigUint, power: i64) -> Float {
    if numerator == BigUint::ZERO {
        return Float::Finite(BigInt::ZERO, 0);
    }
    // The quotient gets 64 or 65 bits; then 64.
    let mut shift = MANTISSA - (numerator.bits() as i64 - denominator.bits() as i64);
    let quotient = |shift: i64| match shift >= 0 {
        true => (numerator.clone() << shift, denominator.clone()),
        false => (numerator.clone(), denominator.clone() << -shift),
    };
    let (above, below) = quotient(shift);
    if (&above / &below).bits() as i64 > MANTISSA {
        shift -= 1;
    }
    shift = shift.min(power - SMALLEST);
    let (above, below) = quotient(shift);
    let mantissa = half_even(&above, &below);
    if mantissa.bits() as i64 + power - shift > LARGEST {
        return Float::Infinite;
    }
    Float::Finite(BigInt::from_biguint(sign, mantissa), power - shift)
}

/// `above / below`, rounded to the nearest, of two to the even one.
fn half_even(above: &BigUint, below: &BigUint) -> BigUint {
    let (quotient, rest) = (above / below, above % below);
    let up = match (rest << 1_u8).cmp(below) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => quotient.bit(0),
    };
    if up { quotient + 1_u8 } else { quotient }
}

impl Float {
    /// The sum; `None` when it is no number.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        let (Self::Finite(a, x), Self::Finite(b, y)) = (self, other) else { return None };
        let power = *x.min(y);
        let (sign, sum) = ((a << (x - power)) + (b << (y - power))).into_parts();
        match rounded(sign, sum, BigUint::from(1_u8), power) {
            Self::Infinite => None,
            sum => Some(sum),
        }
    }

    /// As Redis writes it (`%.17Lf` without trailing zeros).
    pub(super) fn text(&self) -> String {
        let Self::Finite(number, power) = self else { return "inf".to_owned() };
        let (sign, mantissa) = (number.sign(), number.magnitude());
        let scaled = mantissa * BigUint::from(10_u8).pow(17);
        let scaled = match *power >= 0 {
            true => scaled << *power,
            false => half_even(&scaled, &(BigUint::from(1_u8) << -*power)),
        };
        let digits = format!("{:0>18}", scaled.to_string());
        let (whole, fraction) = digits.split_at(digits.len() - 17);
        let fraction = fraction.trim_end_matches('0');
        let minus = if sign == Sign::Minus { "-" } else { "" };
        let text = match fraction {
            "" => format!("{minus}{whole}"),
            fraction => format!("{minus}{whole}.{fraction}"),
        };
        if text == "-0" { "0".to_owned() } else { text }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        parse(a.as_bytes())?.plus(&parse(b.as_bytes())?).map(|sum| sum.text())
    }

    /// What Redis 7.0 on x86-64 answers; tests/data_path/modify.rs asks one about many more.
    #[test]
    fn sums_have_the_digits_of_an_80_bit_float() {
        for (a, b, wanted) in [
            ("10.50", "0.1", "10.6"),
            ("0", "0.1", "0.1"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3.5", "-0.5"),
            ("-0", "0", "0"),
            ("1e15", "0.001", "1000000000000000.0009765625"),
            ("17179869184", "1.5", "17179869185.5"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(wanted), "{a} + {b}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "1e4932"), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let huge = format!("1e{}", i64::MAX);
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "1e",
            "e1",
            ".",
            "+",
            "--1",
            "1.2.3",
            "1e5000",
            "1e-5000",
            "0x",
            huge.as_str(),
            "1_0",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        for text in ["1.", ".5", "+1", "-1e+2", "0e99999", "00012"] {
            assert!(parse(text.as_bytes()).is_some(), "{text}");
        }
    }
}
