//! Pauses between attempts: exponential backoff with jitter.

use std::time::Duration;

/// Exponential backoff with jitter.
///
/// The jitter is keyed, not random: a repeated run has the same pauses, while requests that failed at the same time
/// are not retried at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest pause before the second attempt.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after `failed` failed attempts (from 1): between half and all of
    /// `min(first · 2^(failed − 1), longest)`.
    pub fn pause(&self, failed: u32, key: u64) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        let bits = mix(key ^ mix(u64::from(failed)));
        // 53 bits make every f64 in [0, 1) that is a multiple of 2⁻⁵³.
        let uniform = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        whole.mul_f64(0.5 + 0.5 * uniform)
    }
}

/// The finaliser of splitmix64: every bit of the key moves every bit of the result.
pub(super) fn mix(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_over_their_upper_half() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let backoff = Backoff { first, longest };
        for failed in 1..40 {
            let whole = (first * (1 << (failed - 1).min(10))).min(longest);
            let pauses: Vec<_> = (0..200).map(|key| backoff.pause(failed, key)).collect();
            let (least, most) = (pauses.iter().min(), pauses.iter().max());
            assert!(*least.unwrap() >= whole / 2 && *most.unwrap() <= whole);
            assert!(*most.unwrap() - *least.unwrap() > whole.mul_f64(0.45));
        }
    }

    #[test]
    fn the_same_key_pauses_as_long_again() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        };
        assert_eq!(backoff.pause(3, 7), backoff.pause(3, 7));
        assert_ne!(backoff.pause(3, 7), backoff.pause(3, 8));
        assert_ne!(backoff.pause(7, 7), backoff.pause(8, 7));
    }
}
