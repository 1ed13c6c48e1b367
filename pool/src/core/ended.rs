//! How leases ended that are over, for those who ask late.
//!
//! Each epoch has one place, which it shares with those a power of two away: a lease is forgotten
//! when one that was drawn so much later, or earlier, ends.

use super::{hash::NumberMap, types::LeaseEnd};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Ended {
    /// A power of two of them.
    places: Box<[End]>,
    /// Why, of those in `places` that were revoked: they are few.
    reasons: NumberMap<Arc<str>>,
}

/// The end of a lease in eight bytes: how, in the low two bits, and above them its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End(u64);

const NONE: End = End(0);
const RELEASED: u64 = 1;
const EXPIRED: u64 = 2;
const REVOKED: u64 = 3;

impl End {
    fn new(epoch: u64, how: u64) -> Self {
        Self(epoch << 2 | how)
    }

    fn epoch(self) -> u64 {
        self.0 >> 2
    }

    fn how(self) -> u64 {
        self.0 & 3
    }
}

impl Ended {
    pub(super) fn new(leases_max: usize) -> Self {
        let places = leases_max.max(1).next_power_of_two();
        Self { places: vec![NONE; places].into(), reasons: NumberMap::default() }
    }

    pub(super) fn insert(&mut self, epoch: u64, how: LeaseEnd) {
        let (how, why) = match how {
            LeaseEnd::Released => (RELEASED, None),
            LeaseEnd::Expired => (EXPIRED, None),
            LeaseEnd::Revoked(why) => (REVOKED, Some(why)),
        };
        let place = self.place(epoch);
        let former = std::mem::replace(&mut self.places[place], End::new(epoch, how));
        if former.how() == REVOKED {
            self.reasons.remove(&former.epoch());
        }
        if let Some(why) = why {
            self.reasons.insert(epoch, why);
        }
    }

    pub(super) fn get(&self, epoch: u64) -> Option<LeaseEnd> {
        let end = self.places[self.place(epoch)];
        match end.how() {
            RELEASED if end.epoch() == epoch => Some(LeaseEnd::Released),
            EXPIRED if end.epoch() == epoch => Some(LeaseEnd::Expired),
            REVOKED if end.epoch() == epoch => {
                self.reasons.get(&epoch).cloned().map(LeaseEnd::Revoked)
            }
            _ => None,
        }
    }

    fn place(&self, epoch: u64) -> usize {
        usize::try_from(epoch & (self.places.len() as u64 - 1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_remembered_until_as_many_leases_later() {
        let mut ended = Ended::new(4);
        for epoch in 10..14 {
            ended.insert(epoch, LeaseEnd::Expired);
        }
        assert!((10..14).all(|epoch| ended.get(epoch) == Some(LeaseEnd::Expired)));
        ended.insert(14, LeaseEnd::Released);
        assert_eq!((ended.get(10), ended.get(14)), (None, Some(LeaseEnd::Released)));
        assert_eq!(ended.get(6), None);
    }

    #[test]
    fn a_reason_is_kept_as_long_as_its_end() {
        let mut ended = Ended::new(4);
        let lost = LeaseEnd::Revoked("its container was lost".into());
        ended.insert(10, lost.clone());
        assert_eq!(ended.get(10), Some(lost.clone()));
        ended.insert(14, lost.clone());
        assert_eq!((ended.get(10), ended.get(14)), (None, Some(lost)));
        ended.insert(18, LeaseEnd::Released);
        assert!(ended.reasons.is_empty());
    }
}
