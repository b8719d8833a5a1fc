//! Chance, by arithmetic alone: what is drawn for a row depends on the seed, on what it is drawn for, and on the row's number.
//!
//! Invariant: no function of a mathematical library is called, for these differ in the last bit from one to the next.

use watershed_core::clock::mix;

/// Of a text, what sets draws for it apart from those for another.
pub(crate) fn salt(text: &str) -> u64 {
    // FNV-1a, and mixed, for names differ in few bits.
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// 64 bits for a row.
pub(crate) fn draw(seed: u64, salt: u64, row: i64) -> u64 {
    mix(mix(seed ^ salt) ^ mix(row.cast_unsigned()))
}

/// A number below `n`.
pub(crate) fn below(drawn: u64, n: u64) -> u64 {
    u64::try_from((u128::from(drawn) * u128::from(n)) >> 64).unwrap_or(0)
}

/// Whether a draw is among this share of all.
pub(crate) fn is_among(drawn: u64, share: f64) -> bool {
    // 53 bits are what a double has.
    ((drawn >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// One of `keys`, of which the first `1 - skew` are drawn with the probability `skew`, and so again among these: the
/// self-similar distribution of Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994).
pub(crate) fn key(mut drawn: u64, keys: u64, skew: f64) -> u64 {
    let mut keys = keys;
    if skew > 0.5 {
        while keys > 1 {
            // `1 - skew` itself is rarely a double.
            let hot = (keys - (keys as f64 * skew) as u64).clamp(1, keys - 1);
            let is_hot = is_among(drawn, skew);
            drawn = mix(drawn);
            if !is_hot {
                return hot + below(drawn, keys - hot);
            }
            keys = hot;
        }
    }
    below(drawn, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: i64 = 100_000;

    fn counts(keys: u64, skew: f64) -> Vec<i64> {
        let mut counts = vec![0; keys as usize];
        for row in 0..DRAWS {
            counts[key(draw(1, salt("city"), row), keys, skew) as usize] += 1;
        }
        counts
    }

    #[test]
    fn without_skew_all_keys_are_drawn_alike() {
        let counts = counts(50, 0.5);
        assert!(counts.iter().all(|n| (1_700..2_300).contains(n)), "{counts:?}");
    }

    #[test]
    fn with_skew_a_fifth_of_the_keys_has_four_fifths_of_the_rows_and_so_again() {
        let counts = counts(100, 0.8);
        let first = |n: usize| counts[..n].iter().sum::<i64>() as f64 / DRAWS as f64;
        assert!((0.79..0.81).contains(&first(20)) && (0.63..0.65).contains(&first(4)), "{counts:?}");
        assert!(counts.iter().all(|n| *n > 100), "every key is drawn: {counts:?}");
    }

    #[test]
    fn a_draw_is_the_same_wherever_it_is_made() {
        // From now on: jobs go on in logs that were begun with these.
        let drawn: Vec<u64> = (0..8).map(|row| key(draw(7, salt("city"), row), 1_000, 0.9)).collect();
        assert_eq!(drawn, [0, 0, 0, 918, 136, 0, 0, 0]);
        assert!(is_among(u64::MAX, 1.0) && !is_among(0, 0.0));
    }
}
