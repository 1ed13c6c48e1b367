//! What the core promises, one promise at a time.

use super::{
    model::Answer,
    world::{World, profile},
};
use crate::core::{
    Closing, ContainerRecord, Effect, Event, LeaseEnd, LeaseRecord, NoLease, Recovered, Refusal,
    Retry, SeenContainer, WaiterId,
};
use slotmux_protocol::{
    ContainerId, Epoch, LeaseId, ProfileName, SlotIndex, TrajectoryId,
    link::{SlotReport, SlotState},
};

fn world(slots: u16, min: u32, max: u32) -> World {
    World::new(vec![profile("a", slots, min, max)])
}

fn leases(world: &World, waiter: WaiterId) -> Vec<LeaseId> {
    match &world.model.answers[&waiter] {
        Answer::Granted(leases) => leases.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_demand_is_met_in_one_step_and_idle_containers_go_after_the_cooldown() {
    let mut world = world(4, 0, 10);
    for number in 0..9 {
        world.acquire(&format!("t{number}"), 1);
    }
    world.deliver();
    assert_eq!(world.status().containers.ready, 3);
    assert_eq!(world.status().slots.leased, 9);
    for lease in world.model.granted() {
        world.tell(Event::Release { lease }).unwrap();
    }
    world.deliver();
    world.pass(59_000);
    world.deliver();
    assert_eq!(world.status().containers.ready, 3, "the cooldown is not over");
    world.pass(1_000);
    world.deliver();
    assert_eq!(world.status().containers.ready, 2, "so many were needed in that time");
    world.pass(60_000);
    world.deliver();
    assert_eq!(
        world.status().containers,
        slotmux_protocol::v1::ContainerCounts { max: 10, ..Default::default() }
    );
    assert_eq!(world.status().totals.containers_lost, 0);
}

#[test]
fn a_container_with_a_lease_is_never_scaled_down() {
    let mut world = world(1, 0, 3);
    let held: Vec<_> = (0..3).map(|number| world.acquire(&format!("t{number}"), 1)).collect();
    world.deliver();
    let last = leases(&world, held[2])[0];
    for waiter in &held[..2] {
        let lease = leases(&world, *waiter)[0];
        world.tell(Event::Release { lease }).unwrap();
    }
    world.deliver();
    for _ in 0..5 {
        world.pass(60_000);
        world.deliver();
    }
    assert_eq!(world.status().containers.ready, 1);
    assert!(world.core.lease(last).is_ok());
}

#[test]
fn a_gang_is_not_starved_by_those_who_came_later() {
    let mut world = world(4, 1, 1);
    let early: Vec<_> = (0..4).map(|number| world.acquire(&format!("t{number}"), 1)).collect();
    world.deliver();
    let gang = world.acquire("gang", 3);
    let late = world.acquire("late", 1);
    for waiter in &early[..3] {
        let lease = leases(&world, *waiter)[0];
        world.tell(Event::Release { lease }).unwrap();
        world.deliver();
        assert!(!world.model.answers.contains_key(&late));
    }
    assert_eq!(leases(&world, gang).len(), 3);
    let lease = leases(&world, early[3])[0];
    world.tell(Event::Release { lease }).unwrap();
    world.deliver();
    assert_eq!(leases(&world, late).len(), 1);
}

#[test]
fn more_than_there_will_ever_be_is_refused_at_the_limit() {
    let mut world = world(4, 0, 2);
    let all = world.acquire("all", 8);
    let more = world.acquire("more", 9);
    world.deliver();
    assert_eq!(leases(&world, all).len(), 8);
    let refusal = Refusal::NeverEnough { count: 9, max: 8 };
    assert_eq!(world.model.answers[&more], Answer::Refused(refusal));
}

#[test]
fn a_newer_request_takes_the_older_ones_place() {
    let mut world = world(1, 1, 1);
    let holder = world.acquire("holder", 1);
    world.deliver();
    let older = world.acquire("same", 1);
    let other = world.acquire("other", 1);
    let newer = world.acquire("same", 1);
    assert_eq!(world.model.answers[&older], Answer::Refused(Refusal::Superseded));
    let lease = leases(&world, holder)[0];
    world.tell(Event::Release { lease }).unwrap();
    world.deliver();
    assert_eq!(leases(&world, newer).len(), 1);
    assert!(!world.model.answers.contains_key(&other));
}

#[test]
fn a_deadline_is_kept_at_its_millisecond() {
    let mut world = world(1, 1, 1);
    world.acquire("holder", 1);
    world.deliver();
    let late = world.acquire("late", 1);
    world.pass(29_999);
    assert!(!world.model.answers.contains_key(&late));
    world.pass(1);
    assert_eq!(world.model.answers[&late], Answer::Refused(Refusal::Deadline { trouble: None }));
    assert_eq!(world.status().totals.acquire_timeouts, 1);
}

#[test]
fn a_lease_expires_only_when_it_was_idle_for_its_ttl() {
    let mut world = world(1, 1, 1);
    let waiter = world.acquire("a", 1);
    world.deliver();
    let lease = leases(&world, waiter)[0];
    world.leases_are_active = true;
    world.pass(600_000);
    world.deliver();
    assert_eq!(world.core.lease(lease).unwrap().expires, world.now.plus(600_000));
    world.leases_are_active = false;
    world.pass(599_999);
    world.deliver();
    assert!(world.core.lease(lease).is_ok());
    world.pass(1);
    world.deliver();
    assert_eq!(world.core.lease(lease), Err(NoLease::Ended(LeaseEnd::Expired)));
}

#[test]
fn a_shorter_renewal_expires_sooner() {
    let mut world = world(1, 1, 1);
    let waiter = world.acquire("a", 1);
    world.deliver();
    let lease = leases(&world, waiter)[0];
    world.tell(Event::Renew { lease, ttl_ms: Some(1_000) }).unwrap();
    world.pass(1_000);
    world.deliver();
    assert_eq!(world.core.lease(lease), Err(NoLease::Ended(LeaseEnd::Expired)));
}

#[test]
fn a_dirty_slot_is_quarantined_and_its_container_replaced() {
    let mut world = world(2, 1, 1);
    let waiter = world.acquire("a", 1);
    world.deliver();
    world.pass(20_000);
    let old = world.core.lease(leases(&world, waiter)[0]).unwrap().container;
    world.resets_fail = true;
    let lease = leases(&world, waiter)[0];
    world.tell(Event::Release { lease }).unwrap();
    world.deliver();
    world.resets_fail = false;
    assert_eq!(world.status().totals.quarantined, 1);
    let next = world.acquire("b", 2);
    world.deliver();
    assert_ne!(world.core.lease(leases(&world, next)[0]).unwrap().container, old);
}

#[test]
fn launches_back_off_and_the_hopeless_are_refused() {
    let mut world = world(1, 0, 1);
    world.launches_fail = Some(Retry::Later);
    let patient = world.acquire("a", 1);
    world.deliver();
    assert_eq!(world.status().trouble.as_deref(), Some("no room"));
    for _ in 0..10 {
        world.pass(2_000);
        world.deliver();
    }
    let launches = world.status().totals.containers_launched;
    assert!((4..9).contains(&launches), "{launches} launches in 20 s");
    assert!(!world.model.answers.contains_key(&patient), "it may still be launched");
    world.launches_fail = Some(Retry::Never);
    world.pass(9_000);
    world.deliver();
    let refusal = Refusal::CannotLaunch { why: "no room".into() };
    assert_eq!(world.model.answers[&patient], Answer::Refused(refusal));
    world.launches_fail = None;
    world.pass(10_000);
    let next = world.acquire("b", 1);
    world.deliver();
    assert_eq!(leases(&world, next).len(), 1);
    assert_eq!(world.status().trouble, None);
}

#[test]
fn who_waited_in_vain_hears_why_containers_do_not_start() {
    let mut world = world(1, 0, 1);
    world.launches_fail = Some(Retry::Later);
    let waiter = world.acquire("a", 1);
    world.deliver();
    world.pass(30_000);
    let refusal = Refusal::Deadline { trouble: Some("no room".into()) };
    assert_eq!(world.model.answers[&waiter], Answer::Refused(refusal.clone()));
    assert!(refusal.to_string().ends_with("containers cannot be started: no room"));
}

#[test]
fn a_silent_container_is_lost_after_five_seconds_and_not_before() {
    let mut world = world(1, 1, 1);
    let waiter = world.acquire("a", 1);
    world.deliver();
    let lease = leases(&world, waiter)[0];
    let name = world.core.lease(lease).unwrap().container;
    world.unlink(&name);
    world.deliver();
    world.pass(4_999);
    assert!(world.core.lease(lease).is_ok());
    world.pass(1);
    assert!(matches!(&world.ends()[..], [LeaseEnd::Revoked(why)] if why.contains("silent")));
    world.deliver();
    assert_eq!(world.status().totals.containers_lost, 1);
}

#[test]
fn a_short_break_of_the_link_costs_nothing() {
    let mut world = world(2, 1, 1);
    let waiter = world.acquire("a", 1);
    world.deliver();
    let lease = leases(&world, waiter)[0];
    let name = world.core.lease(lease).unwrap().container;
    world.unlink(&name);
    world.deliver();
    assert_eq!((world.status().slots.unreachable, world.status().slots.free), (1, 0));
    world.pass(3_000);
    world.link(name);
    world.deliver();
    world.pass(10_000);
    assert!(world.core.lease(lease).is_ok());
    assert_eq!((world.status().slots.unreachable, world.status().slots.free), (0, 1));
}

#[test]
fn what_could_not_be_journalled_was_never_lent() {
    let mut world = world(1, 1, 1);
    world.deliver();
    let waiter = world.acquire("a", 1);
    let opened = world.effects.iter().find_map(|effect| match effect {
        Effect::Open { lease, .. } => Some(*lease),
        _ => None,
    });
    world.tell(Event::NotJournalled { lease: opened.unwrap() }).unwrap();
    assert_eq!(world.model.answers[&waiter], Answer::Refused(Refusal::NotJournalled));
    world.deliver();
    let next = world.acquire("b", 1);
    world.deliver();
    assert!(leases(&world, next)[0] > opened.unwrap());
}

#[test]
fn closing_refuses_stops_or_keeps() {
    for (closing, stopped, revoked) in
        [(Closing::Keep, 0, 0), (Closing::Drain, 0, 0), (Closing::Stop, 1, 1)]
    {
        let mut world = world(1, 1, 1);
        let holder = world.acquire("holder", 1);
        world.deliver();
        let waits = world.acquire("waits", 1);
        world.tell(Event::Close(closing)).unwrap();
        assert_eq!(world.model.answers[&waits], Answer::Refused(Refusal::Closing));
        world.deliver();
        assert_eq!(world.ends().len(), revoked, "{closing:?}");
        assert_eq!(world.core.containers().count(), 1 - stopped, "{closing:?}");
        if closing == Closing::Drain {
            let lease = leases(&world, holder)[0];
            world.tell(Event::Release { lease }).unwrap();
            world.deliver();
            assert_eq!(world.core.containers().count(), 0);
        }
    }
}

fn recorded(epoch: u64, container: &str, slot: u16) -> LeaseRecord {
    LeaseRecord {
        lease: LeaseId(Epoch(epoch)),
        trajectory: TrajectoryId::new(format!("t{epoch}")).unwrap(),
        container: ContainerId::new(container).unwrap(),
        slot: SlotIndex(slot),
        ttl_ms: 60_000,
    }
}

#[test]
fn a_journal_is_believed_as_far_as_its_containers_exist() {
    let name = |text| ContainerId::new(text).unwrap();
    let recovered = Recovered {
        leases: vec![recorded(5, "here", 0), recorded(6, "gone", 0), recorded(7, "here", 0)],
        containers: vec![ContainerRecord { id: name("gone"), boot: None }],
        epoch_max: u64::from(u32::MAX) << 10,
    };
    let seen = |id, profile| SeenContainer {
        id: name(id),
        profile: ProfileName::new(profile).unwrap(),
        slots: 2,
        patience_ms: 15_000,
    };
    let seen = vec![seen("here", "a"), seen("stray", "no-such-profile")];
    let mut world = World::recovered(vec![profile("a", 2, 0, 2)], recovered, seen);
    assert!(world.core.lease(LeaseId(Epoch(7))).is_ok());
    for (epoch, word) in [(5, "later lease"), (6, "gone")] {
        let Err(NoLease::Ended(LeaseEnd::Revoked(why))) = world.core.lease(LeaseId(Epoch(epoch)))
        else {
            panic!("{epoch}");
        };
        assert!(why.contains(word), "{why}");
    }
    assert!(world.effects.contains(&Effect::Stop { id: name("stray") }));
    world.core.audit(world.now);
    let next = world.acquire("next", 1);
    // The link of the container that was found never comes up.
    world.pass(15_000);
    assert!(world.core.lease(LeaseId(Epoch(7))).is_err());
    world.deliver();
    assert!(leases(&world, next)[0].0.0 > u64::from(u32::MAX) << 10);
}

#[test]
fn without_its_journal_a_lease_is_unknown_only_when_every_container_was_heard() {
    let id = ContainerId::new("here").unwrap();
    let seen = SeenContainer {
        id: id.clone(),
        profile: ProfileName::new("a").unwrap(),
        slots: 2,
        patience_ms: 15_000,
    };
    let lease = LeaseId(Epoch(7));
    let recovered = Recovered { epoch_max: 6, ..Recovered::default() };
    let mut world = World::recovered(vec![profile("a", 2, 0, 2)], recovered, vec![seen]);
    assert_eq!(world.core.lease(lease), Err(NoLease::Unheard));
    assert_eq!(world.tell(Event::Release { lease }), Err(NoLease::Unheard));
    assert_eq!(world.core.lease(LeaseId(Epoch(6))), Err(NoLease::Unknown), "the journal knew");
    let container = world.core.container(&id).unwrap();
    let clean =
        |slot| SlotReport { slot: SlotIndex(slot), state: SlotState::Clean { fence: Epoch(0) } };
    let reports = vec![clean(0), clean(1)];
    world.tell(Event::LinkUp { container, boot: "boot".into(), reports }).unwrap();
    assert_eq!(world.core.lease(lease), Err(NoLease::Unknown));
}
