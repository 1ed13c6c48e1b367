//! From a hash to slots. An entry is eight bytes, so that a look-up is about one line of the
//! processor's cache, however many there are.
//!
//! It keeps hashes and not keys: whoever asks compares the slots that it is shown.
//!
//! Invariant: from the home of an entry to where it is, no place is vacant.

use super::types::At;

const PLACES_MIN: usize = 64;
const VACANT: Entry = Entry { hash: 0, at: At(u32::MAX) };

#[derive(Debug, Default)]
pub(super) struct Index {
    /// None, or a power of two.
    places: Vec<Entry>,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: u32,
    at: At,
}

impl Index {
    pub(super) fn insert(&mut self, hash: u32, at: At) {
        // At most three of four are taken.
        if 4 * (self.len + 1) > 3 * self.places.len() {
            self.grow();
        }
        self.len += 1;
        self.put(Entry { hash, at });
    }

    pub(super) fn remove(&mut self, hash: u32, at: At) {
        let entry = Entry { hash, at };
        let Some(mut hole) = self.walk(hash).find(|place| self.places[*place] == entry) else {
            return;
        };
        self.len -= 1;
        self.places[hole] = VACANT;
        // Those origin it that are not at home move up.
        let mut place = self.after(hole);
        while self.places[place] != VACANT {
            let origin = self.home(self.places[place].hash);
            if self.distance(origin, place) >= self.distance(hole, place) {
                self.places.swap(hole, place);
                hole = place;
            }
            place = self.after(place);
        }
    }

    /// The slots with this hash.
    pub(super) fn find(&self, hash: u32) -> impl Iterator<Item = At> {
        let entries = self.walk(hash).map(|place| self.places[place]);
        entries.filter(move |entry| entry.hash == hash).map(|entry| entry.at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every place where an entry with this hash may be.
    fn walk(&self, hash: u32) -> impl Iterator<Item = usize> {
        let home = (!self.places.is_empty()).then(|| self.home(hash));
        std::iter::successors(home, |place| Some(self.after(*place)))
            .take_while(|place| self.places[*place] != VACANT)
    }

    fn put(&mut self, entry: Entry) {
        let mut place = self.home(entry.hash);
        while self.places[place] != VACANT {
            place = self.after(place);
        }
        self.places[place] = entry;
    }

    fn grow(&mut self) {
        let places = (2 * self.places.len()).max(PLACES_MIN);
        let former = std::mem::replace(&mut self.places, vec![VACANT; places]);
        former.into_iter().filter(|it| *it != VACANT).for_each(|entry| self.put(entry));
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.places.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_finds_what_is_in_it_and_nothing_else(
            changes in prop::collection::vec((any::<bool>(), 0u32..40, 0u32..40), 0..400)
        ) {
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            for (add, hash, slot) in changes {
                // Near the end of the table too, so that entries wrap round.
                let hash = if hash < 20 { hash } else { u32::MAX - hash };
                if add {
                    if model.insert((hash, slot)) { index.insert(hash, At(slot)); }
                } else if model.remove(&(hash, slot)) {
                    index.remove(hash, At(slot));
                }
                let found: BTreeSet<u32> = index.find(hash).map(|at| at.0).collect();
                let expected = model.iter().filter(|it| it.0 == hash).map(|it| it.1).collect();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(index.len(), model.len());
            }
        }
    }
}
