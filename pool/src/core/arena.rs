//! Containers by place and generation. The lowest vacant place is taken first, which keeps the
//! containers together at the front.

use super::types::ContainerKey;
use std::{cmp::Reverse, collections::BinaryHeap};

#[derive(Debug)]
pub(super) struct Arena<T> {
    values: Vec<Option<T>>,
    /// Apart from the values: all news is checked against them, and they are few bytes.
    generations: Vec<u32>,
    vacant: BinaryHeap<Reverse<u32>>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { values: Vec::new(), generations: Vec::new(), vacant: BinaryHeap::new() }
    }
}

impl<T> Arena<T> {
    /// `make` is told the key.
    pub(super) fn insert(&mut self, make: impl FnOnce(ContainerKey) -> T) -> ContainerKey {
        let index = self.vacant.pop().map_or_else(
            || {
                self.values.push(None);
                self.generations.push(0);
                u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
            },
            |Reverse(index)| index,
        );
        let key = ContainerKey { index, generation: self.generations[index as usize] };
        self.values[index as usize] = Some(make(key));
        key
    }

    pub(super) fn remove(&mut self, key: ContainerKey) -> Option<T> {
        let generation = self.generations.get_mut(key.index as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = self.values[key.index as usize].take()?;
        *generation = generation.wrapping_add(1);
        self.vacant.push(Reverse(key.index));
        Some(value)
    }

    pub(super) fn get(&self, key: ContainerKey) -> Option<&T> {
        let generation = self.generations.get(key.index as usize)?;
        if *generation == key.generation { self.at(key.index) } else { None }
    }

    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.values.get(index as usize)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.values.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() - self.vacant.len()
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
