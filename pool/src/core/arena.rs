//! Containers by place and generation. The lowest vacant place is taken first, which keeps the
//! containers together at the front.

use super::types::ContainerKey;
use std::{cmp::Reverse, collections::BinaryHeap};

#[derive(Debug)]
pub(super) struct Arena<T> {
    places: Vec<Place<T>>,
    vacant: BinaryHeap<Reverse<u32>>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { places: Vec::new(), vacant: BinaryHeap::new() }
    }
}

impl<T> Arena<T> {
    /// `make` is told the key.
    pub(super) fn insert(&mut self, make: impl FnOnce(ContainerKey) -> T) -> ContainerKey {
        let index = self.vacant.pop().map_or_else(
            || {
                self.places.push(Place { generation: 0, value: None });
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            },
            |Reverse(index)| index,
        );
        let place = &mut self.places[index as usize];
        let key = ContainerKey { index, generation: place.generation };
        place.value = Some(make(key));
        key
    }

    pub(super) fn remove(&mut self, key: ContainerKey) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.vacant.push(Reverse(key.index));
        Some(value)
    }

    pub(super) fn get(&self, key: ContainerKey) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        place.value.as_ref().filter(|_| place.generation == key.generation)
    }

    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.value.as_ref()
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.value.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_no_use_after_its_container_is_gone() {
        let mut arena = Arena::default();
        let first = arena.insert(|_| 'a');
        assert_eq!(arena.remove(first), Some('a'));
        let second = arena.insert(|_| 'b');
        assert_eq!(first.index, second.index);
        assert_eq!((arena.get(first), arena.get(second)), (None, Some(&'b')));
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.len(), 1);
    }
}
