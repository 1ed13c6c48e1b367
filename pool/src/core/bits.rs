//! A set of small numbers that knows its first and its last member at once.
//!
//! Invariant: a bit of a level is set exactly when its word one level below is not zero.

const LEVELS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Bits {
    levels: [Vec<u64>; LEVELS],
}

impl Bits {
    pub(super) fn insert(&mut self, number: u32) {
        let mut place = number as usize;
        for level in &mut self.levels {
            let (word, bit) = (place / 64, place % 64);
            if level.len() <= word {
                level.resize(word + 1, 0);
            }
            let before = level[word];
            level[word] = before | 1 << bit;
            if before != 0 {
                return;
            }
            place = word;
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        let mut place = number as usize;
        for level in &mut self.levels {
            let (word, bit) = (place / 64, place % 64);
            let Some(bits) = level.get_mut(word) else { return };
            *bits &= !(1 << bit);
            if *bits != 0 {
                return;
            }
            place = word;
        }
    }

    pub(super) fn first(&self) -> Option<u32> {
        let top = self.levels[LEVELS - 1].iter().position(|word| *word != 0)?;
        self.descend(top, u64::trailing_zeros)
    }

    pub(super) fn last(&self) -> Option<u32> {
        let top = self.levels[LEVELS - 1].iter().rposition(|word| *word != 0)?;
        self.descend(top, u64::ilog2)
    }

    fn descend(&self, top: usize, pick: impl Fn(u64) -> u32) -> Option<u32> {
        let place = self
            .levels
            .iter()
            .rev()
            .fold(top, |word, level| word * 64 + pick(level[word]) as usize);
        u32::try_from(place).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn first_and_last_are_those_of_a_sorted_set(
            changes in prop::collection::vec((any::<bool>(), 0u32..600_000), 0..200)
        ) {
            let (mut bits, mut model) = (Bits::default(), BTreeSet::new());
            for (add, number) in changes {
                // Near numbers too, so that words fill and empty.
                let number = if number % 2 == 0 { number % 200 } else { number };
                if add { bits.insert(number); model.insert(number); }
                else { bits.remove(number); model.remove(&number); }
                prop_assert_eq!(bits.first(), model.first().copied());
                prop_assert_eq!(bits.last(), model.last().copied());
            }
        }
    }
}
