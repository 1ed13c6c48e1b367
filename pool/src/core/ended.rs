//! How leases ended that are over, for those who ask late.
//!
//! Each epoch has one place, which it shares with those a power of two away: a lease is forgotten
//! when one that was drawn so much later, or earlier, ends.

use super::types::LeaseEnd;

#[derive(Debug)]
pub(super) struct Ended {
    places: Box<[Option<(u64, LeaseEnd)>]>,
}

impl Ended {
    pub(super) fn new(leases_max: usize) -> Self {
        let places = leases_max.max(1).next_power_of_two();
        Self { places: (0..places).map(|_| None).collect() }
    }

    pub(super) fn insert(&mut self, epoch: u64, how: LeaseEnd) {
        let place = self.place(epoch);
        self.places[place] = Some((epoch, how));
    }

    pub(super) fn get(&self, epoch: u64) -> Option<&LeaseEnd> {
        let (found, how) = self.places[self.place(epoch)].as_ref()?;
        (*found == epoch).then_some(how)
    }

    fn place(&self, epoch: u64) -> usize {
        usize::try_from(epoch % self.places.len() as u64).unwrap_or(0)
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
        assert!((10..14).all(|epoch| ended.get(epoch) == Some(&LeaseEnd::Expired)));
        ended.insert(14, LeaseEnd::Released);
        assert_eq!((ended.get(10), ended.get(14)), (None, Some(&LeaseEnd::Released)));
        assert_eq!(ended.get(6), None);
    }
}
