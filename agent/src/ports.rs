//! Ports of this machine that containers may have.
//!
//! Invariant: none is given to two at the same time. Dropped ones are back at once.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug, Clone)]
pub(crate) struct Ports {
    /// The one that was used longest ago first: an engine may be slow to let go of one.
    free: Arc<Mutex<VecDeque<u16>>>,
}

/// Gives them back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    ports: Vec<u16>,
    home: Arc<Mutex<VecDeque<u16>>>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        Self { free: Arc::new(Mutex::new(range.collect())) }
    }

    /// All or none.
    pub(crate) fn take(&self, count: usize) -> Option<Taken> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        (free.len() >= count)
            .then(|| Taken { ports: free.drain(..count).collect(), home: self.free.clone() })
    }

    /// Those that a container has already.
    pub(crate) fn take_these(&self, ports: &BTreeSet<u16>) -> Taken {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, rest) = free.drain(..).partition::<VecDeque<_>, _>(|it| ports.contains(it));
        *free = rest;
        Taken { ports: taken.into(), home: self.free.clone() }
    }
}

impl Taken {
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut free = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.ports.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_each_comes_back() {
        let ports = Ports::new(10..=13);
        let first = ports.take(3).unwrap();
        assert_eq!(first.ports(), [10, 11, 12]);
        assert!(ports.take(2).is_none());
        let second = ports.take(1).unwrap();
        assert_eq!(second.ports(), [13]);
        drop(first);
        assert_eq!(ports.take(2).unwrap().ports(), [10, 11]);
        let adopted = ports.take_these(&BTreeSet::from([12, 99]));
        assert_eq!(adopted.ports(), [12]);
        assert!(ports.take(3).is_none());
    }
}
