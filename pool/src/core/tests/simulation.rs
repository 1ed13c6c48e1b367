//! A hundred thousand slots and a million events, with everything that goes wrong now and then.

use super::world::{Watch, World, profile};
use crate::core::{Effect, Event};
use slotmux_protocol::{ContainerId, Epoch, LeaseId, SlotIndex, link::SlotState};
use std::collections::HashMap;

const SLOTS_PER_CONTAINER: u16 = 16;
const CONTAINERS: u32 = 6_250;
const EVENTS: u64 = 1_000_000;

#[derive(Default)]
struct Books {
    /// Who has which slot.
    held: HashMap<(ContainerId, SlotIndex), LeaseId>,
    leases: Vec<LeaseId>,
    granted: u64,
    refused: u64,
}

impl Books {
    /// Takes in what the core did; nothing is given twice, and no epoch comes back.
    fn enter(&mut self, world: &mut World) {
        for effect in std::mem::take(&mut world.effects) {
            match effect {
                Effect::Grant { leases, .. } => {
                    self.granted += 1;
                    for lease in leases {
                        let view = world.core.lease(lease).unwrap();
                        let before = self.held.insert((view.container, view.at.slot), lease);
                        assert_eq!(before, None, "a slot in two hands");
                        self.leases.push(lease);
                    }
                }
                Effect::Refuse { .. } => self.refused += 1,
                Effect::LeaseEnded { lease, container, slot, .. } => {
                    assert_eq!(self.held.remove(&(container, slot)), Some(lease));
                }
                _ => {}
            }
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

#[test]
fn a_hundred_thousand_slots_survive_a_million_events() {
    let mut settings = profile("a", SLOTS_PER_CONTAINER, CONTAINERS, CONTAINERS);
    settings.backoff_max_ms = 100;
    let mut world = World::new(vec![settings]);
    world.watch = Watch::Every(100_000);
    let (mut books, mut dice) = (Books::default(), Dice(0x9e37_79b9_7f4a_7c15));
    deliver(&mut world, &mut books);
    assert_eq!(world.status().slots.free, 100_000);
    let names: Vec<ContainerId> = world.servers.keys().cloned().collect();

    let mut round: usize = 0;
    while world.told < EVENTS {
        round += 1;
        // Demand swells over the capacity, and ebbs.
        let count = if dice.below(50) == 0 { 2 + dice.below(15) } else { 1 };
        world.acquire(&format!("t{round}"), u32::try_from(count).unwrap());
        if round > 90_000 && !books.leases.is_empty() {
            let place = dice.below(books.leases.len());
            let lease = books.leases.swap_remove(place);
            let _ = world.tell(Event::Release { lease });
        }
        if round.is_multiple_of(2_000) {
            mishap(&mut world, &names[dice.below(names.len())], dice.below(4));
        }
        if round.is_multiple_of(100) {
            deliver(&mut world, &mut books);
            world.pass(10);
        }
    }

    // It all settles: nobody has a slot, and nobody waits for one.
    for _ in 0..40 {
        for lease in std::mem::take(&mut books.leases) {
            let _ = world.tell(Event::Release { lease });
        }
        deliver(&mut world, &mut books);
        world.pass(3_000);
    }
    world.core.audit(world.now);
    let status = world.status();
    assert!(books.held.is_empty());
    assert_eq!((status.slots.leased, status.slots.resetting, status.waiting), (0, 0, 0));
    assert_eq!(status.slots.free + status.slots.quarantined, 100_000);
    assert_eq!(books.granted + books.refused, round as u64, "each is answered once");
    assert!(status.totals.revoked > 0 && status.totals.containers_lost > 0);
}

fn deliver(world: &mut World, books: &mut Books) {
    while !world.mail.is_empty() {
        for event in std::mem::take(&mut world.mail) {
            let _ = world.tell(event);
            books.enter(world);
        }
    }
    books.enter(world);
}

fn mishap(world: &mut World, name: &ContainerId, kind: usize) {
    let Some(server) = world.servers.get_mut(name) else { return };
    match kind {
        0 => world.unlink(name),
        1 => world.link(name.clone()),
        2 => {
            server.boot += 1;
            server.slots.fill(SlotState::Clean { fence: Epoch(0) });
            world.link(name.clone());
        }
        _ => {
            let container = server.key;
            world.servers.remove(name);
            world.mail.push(Event::ContainerGone { container, why: "killed".into() });
        }
    }
}
