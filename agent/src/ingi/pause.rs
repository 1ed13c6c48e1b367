//! How long to wait before the next attempt: longer each time, and never two of a fleet in step.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Pause {
    /// In a row.
    failures: u32,
}

impl Pause {
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn begin_again(&mut self) {
        self.failures = 0;
    }

    /// Before the next attempt, after a failure. Between half and all of the doubled time.
    pub(super) fn after_failure(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Drawn anew each time by the standard library, which is random enough for this.
        let drawn = RandomState::new().build_hasher().finish() % 512;
        let share = u32::try_from(drawn).unwrap_or(0);
        longest / 2 + longest / 1_024 * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_longest_and_begins_again() {
        let mut pause = Pause::default();
        let first = pause.after_failure();
        assert!(first >= FIRST / 2 && first <= FIRST);
        let mut later = first;
        for _ in 0..20 {
            later = pause.after_failure();
        }
        assert!(later >= LONGEST / 2 && later <= LONGEST);
        assert_eq!(pause.failures(), 21);
        pause.begin_again();
        assert!(pause.after_failure() <= FIRST);
    }
}
