//! Decimal text as exact numbers: `12`, `-0.5`, `1.7e9`.
//!
//! Floats would lose digits of large integers and of decimals, and arrow's parsers of decimals wrap around where digits or
//! exponents are more than they reckon with, which a log may well hold.
//!
//! Invariant: a result is exact, or known to be inexact; there is no wrapping.

/// A number as it is written: `digits` times ten to the `exponent`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    negative: bool,
    digits: i128,
    exponent: i32,
    /// Digits of its fraction were too many to keep.
    full: bool,
    /// Not all of those were zeros.
    cut: bool,
}

/// A number in units of a power of ten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaled {
    negative: bool,
    whole: i128,
    /// A half or more is left.
    half: bool,
    exact: bool,
}

impl Number {
    /// `None`: it is no number, or one whose whole part is beyond 128 bits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let mut number = Number { negative, digits: 0, exponent: 0, full: false, cut: false };
        let (mut any, mut fraction) = (false, false);
        let mut rest = text.iter();
        while let Some(byte) = rest.next() {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    number.push(i128::from(byte - b'0'), fraction)?;
                }
                b'.' if !fraction => fraction = true,
                b'e' | b'E' if any => {
                    let exponent: i32 = std::str::from_utf8(rest.as_slice()).ok()?.parse().ok()?;
                    number.exponent = number.exponent.checked_add(exponent)?;
                    break;
                }
                _ => return None,
            }
        }
        any.then_some(number)
    }

    fn push(&mut self, digit: i128, fraction: bool) -> Option<()> {
        match self.digits.checked_mul(10).and_then(|digits| digits.checked_add(digit)) {
            Some(digits) if !self.full => {
                self.digits = digits;
                self.exponent -= i32::from(fraction);
            }
            None if !fraction => return None,
            _ => {
                self.full = true;
                self.cut |= digit != 0;
            }
        }
        Some(())
    }

    /// In units of ten to the minus `scale`; `None` if that is beyond 128 bits, or asks for digits that were not kept.
    pub(crate) fn scaled(self, scale: i32) -> Option<Scaled> {
        let Number { negative, digits, cut, .. } = self;
        let shift = self.exponent.checked_add(scale)?;
        if digits == 0 {
            return Some(Scaled { negative, whole: 0, half: false, exact: !cut });
        }
        if shift >= 0 {
            let power = 10i128.checked_pow(shift.unsigned_abs())?;
            let whole = digits.checked_mul(power).filter(|_| !cut)?;
            return Some(Scaled { negative, whole, half: false, exact: true });
        }
        // A power beyond 128 bits is one beyond the digits, too: nearly nothing is left.
        let Some(power) = 10i128.checked_pow(shift.unsigned_abs()) else {
            return Some(Scaled { negative, whole: 0, half: false, exact: false });
        };
        let (whole, left) = (digits / power, digits % power);
        Some(Scaled { negative, whole, half: left >= power / 2, exact: left == 0 && !cut })
    }
}

impl Scaled {
    fn signed(self, whole: i128) -> i128 {
        if self.negative { -whole } else { whole }
    }

    pub(crate) fn exact(self) -> Option<i128> {
        self.exact.then(|| self.signed(self.whole))
    }

    /// To the nearest; halves away from zero, as a cast in SQL does it.
    pub(crate) fn rounded(self) -> i128 {
        self.signed(self.whole + i128::from(self.half))
    }

    pub(crate) fn floor(self) -> i128 {
        self.signed(self.whole + i128::from(self.negative && !self.exact))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str, scale: i32) -> Option<(Option<i128>, i128, i128)> {
        let scaled = Number::parse(text)?.scaled(scale)?;
        Some((scaled.exact(), scaled.rounded(), scaled.floor()))
    }

    #[test]
    fn numbers_as_they_are_written() {
        assert_eq!(of("12", 0), Some((Some(12), 12, 12)));
        assert_eq!(of("2.0", 0), Some((Some(2), 2, 2)));
        assert_eq!(of("2e3", 0), Some((Some(2000), 2000, 2000)));
        assert_eq!(of("-2.5", 0), Some((None, -3, -3)));
        assert_eq!(of("-2.4", 0), Some((None, -2, -3)));
        assert_eq!(of("1.239", 2), Some((None, 124, 123)));
        assert_eq!(of("-1.235", 2), Some((None, -124, -124)));
        assert_eq!(of("1e-400", 2), Some((None, 0, 0)));
        assert_eq!(of("-1e-400", 2), Some((None, 0, -1)));
        assert_eq!(of("0e400", 2), Some((Some(0), 0, 0)));
        assert_eq!(of(&format!("9.{}", "0".repeat(300)), 0), Some((Some(9), 9, 9)));
        let thirds = format!("0.{}", "3".repeat(300));
        assert_eq!(of(&thirds, 4), Some((None, 3333, 3333)));
    }

    #[test]
    fn what_would_wrap_is_refused() {
        assert_eq!(of("1e65536", 0), None);
        assert_eq!(of("1e99999999999", 0), None);
        assert_eq!(of(&format!("1{}", "0".repeat(260)), 0), None);
        assert_eq!(of(&format!("0.{}e200", "3".repeat(200)), 0), None);
        for text in ["", "-", ".", "e5", "1e", "1.2.3", "0x10", "true", " 1", "1 ", "1-2", "NaN"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn exact_as_integers_are(value: i64, scale in 0i32..10) {
            let scaled = Number::parse(&value.to_string()).unwrap().scaled(scale).unwrap();
            prop_assert_eq!(scaled.exact(), Some(i128::from(value) * 10i128.pow(scale.unsigned_abs())));
        }

        #[test]
        fn never_panics(text in r"[-+]?[0-9]{0,50}\.?[0-9]{0,50}([eE][-+]?[0-9]{0,12})?", scale in -40i32..40) {
            if let Some(scaled) = Number::parse(&text).and_then(|number| number.scaled(scale)) {
                prop_assert!(scaled.floor() <= scaled.rounded());
                prop_assert!(scaled.rounded() - scaled.floor() <= 1);
            }
        }
    }
}
