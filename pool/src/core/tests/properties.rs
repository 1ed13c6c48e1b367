//! Any order of events, with late, repeated and false ones among them.

use super::{
    model::Answer,
    world::{World, profile},
};
use crate::core::{Event, ProfileKey, Refusal, Retry, Spot};
use proptest::prelude::*;
use slotmux_protocol::{
    ContainerId, Epoch, LeaseId, ProfileName, SlotIndex, TrajectoryId,
    link::{Holder, SlotReport, SlotState},
};

#[derive(Debug, Clone)]
enum Step {
    Acquire { who: u8, count: u8, priority: i8, profile: bool, patient: bool },
    Cancel(u8),
    Release(u8),
    Renew(u8, u16),
    Deliver(u8),
    Drop(u8),
    Repeat(u8),
    Pass(u16),
    Unlink(u8),
    Link(u8),
    Reboot(u8),
    Crash(u8),
    Refuse(u8),
    Lie { kind: u8, container: u8, slot: u8, epoch: u8 },
    ResetsFail(bool),
    LaunchesFail(u8),
    Activity(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0u8..12, 1u8..8, -1i8..2, any::<bool>(), any::<bool>()).prop_map(
            |(who, count, priority, profile, patient)| {
                let count = if count < 5 { 1 } else { count - 3 };
                Step::Acquire { who, count, priority, profile, patient }
            }
        ),
        2 => any::<u8>().prop_map(Step::Cancel),
        8 => any::<u8>().prop_map(Step::Release),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(who, ttl)| Step::Renew(who, ttl)),
        30 => any::<u8>().prop_map(Step::Deliver),
        1 => any::<u8>().prop_map(Step::Drop),
        1 => any::<u8>().prop_map(Step::Repeat),
        4 => any::<u16>().prop_map(|span| Step::Pass(span % 4_000)),
        1 => any::<u16>().prop_map(Step::Pass),
        1 => any::<u8>().prop_map(Step::Unlink),
        2 => any::<u8>().prop_map(Step::Link),
        1 => any::<u8>().prop_map(Step::Reboot),
        1 => any::<u8>().prop_map(Step::Crash),
        1 => any::<u8>().prop_map(Step::Refuse),
        3 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
            |(kind, container, slot, epoch)| Step::Lie { kind, container, slot, epoch }
        ),
        1 => any::<bool>().prop_map(Step::ResetsFail),
        1 => (0u8..6).prop_map(Step::LaunchesFail),
        1 => any::<bool>().prop_map(Step::Activity),
    ]
}

fn pick<T: Clone>(from: &[T], by: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(by) % from.len()].clone())
}

impl World {
    fn step(&mut self, step: Step) {
        let names: Vec<ContainerId> = self.servers.keys().cloned().collect();
        match step {
            Step::Acquire { who, count, priority, profile, patient } => {
                let mut request = self.request(&format!("t{who}"), u32::from(count));
                request.profile = ProfileKey(u16::from(profile));
                request.priority = i16::from(priority);
                request.ttl_ms = 5_000;
                let patience = if patient { 10_000_000 } else { 3_000 };
                request.deadline = self.now.plus(patience);
                let _ = self.tell(Event::Acquire(request));
            }
            Step::Cancel(by) => {
                if let Some(waiter) = pick(&self.model.waiting(), by) {
                    let _ = self.tell(Event::Cancel { waiter });
                }
            }
            Step::Release(by) => {
                if let Some(lease) = pick(&self.model.granted(), by) {
                    self.tell(Event::Release { lease }).unwrap();
                    assert!(self.tell(Event::Release { lease }).is_err());
                }
            }
            Step::Renew(by, ttl) => {
                if let Some(lease) = pick(&self.model.granted(), by) {
                    let ttl_ms = Some(u64::from(ttl));
                    self.tell(Event::Renew { lease, ttl_ms }).unwrap();
                }
            }
            Step::Pass(span) => self.pass(u64::from(span)),
            Step::Unlink(by) => {
                if let Some(name) = pick(&names, by) {
                    self.unlink(&name);
                }
            }
            Step::Link(by) => {
                if let Some(name) = pick(&names, by) {
                    self.link(name);
                }
            }
            Step::Reboot(by) => {
                if let Some(server) = pick(&names, by).and_then(|it| self.servers.get_mut(&it)) {
                    server.boot += 1;
                    server.slots.fill(SlotState::Clean { fence: Epoch(0) });
                    server.is_linked = false;
                }
            }
            Step::Crash(by) => {
                if let Some(server) = pick(&names, by).and_then(|it| self.servers.remove(&it)) {
                    let why = "killed".into();
                    self.mail.push(Event::ContainerGone { container: server.key, why });
                }
            }
            Step::Refuse(by) => {
                if let Some(lease) = pick(&self.model.granted(), by) {
                    let _ = self.tell(Event::NotJournalled { lease });
                }
            }
            Step::ResetsFail(fail) => self.resets_fail = fail,
            Step::LaunchesFail(how) => {
                self.launches_fail = match how {
                    0 => Some(Retry::Later),
                    1 => Some(Retry::Never),
                    _ => None,
                };
            }
            Step::Activity(active) => self.leases_are_active = active,
            Step::Deliver(_) | Step::Drop(_) | Step::Repeat(_) => self.post(&step),
            Step::Lie { kind, container, slot, epoch } => self.lie(kind, container, slot, epoch),
        }
    }

    fn post(&mut self, step: &Step) {
        let (Step::Deliver(by) | Step::Drop(by) | Step::Repeat(by)) = step else { return };
        if self.mail.is_empty() {
            return;
        }
        let place = usize::from(*by) % self.mail.len();
        match step {
            Step::Drop(_) if is_sure(&self.mail[place]) => {}
            Step::Drop(_) => drop(self.mail.remove(place)),
            Step::Repeat(_) => self.mail.push(self.mail[place].clone()),
            _ => {
                let event = self.mail.remove(place);
                let _ = self.tell(event);
            }
        }
    }

    /// A fact that nothing has caused.
    fn lie(&mut self, kind: u8, container: u8, slot: u8, epoch: u8) {
        let keys: Vec<_> = self.core.containers().map(|(key, _)| key).collect();
        let Some(container) = pick(&keys, container) else { return };
        let at = Spot { container, slot: SlotIndex(u16::from(slot % 5)) };
        let epochs: Vec<Epoch> =
            self.model.granted().iter().map(|it| it.0).chain([Epoch(5), Epoch(1 << 52)]).collect();
        let epoch = pick(&epochs, epoch).unwrap_or_default();
        let why = "a lie".into();
        let event = match kind % 7 {
            0 => Event::Opened { at, epoch },
            1 => Event::Shut { at, epoch, why },
            2 => Event::Clean { at, epoch },
            3 => Event::Dirty { at, epoch, why },
            4 => Event::Broken { at, epoch, why },
            5 => Event::LinkDown { container, why },
            _ => {
                let holder = Holder {
                    lease: LeaseId(epoch),
                    trajectory: TrajectoryId::new("stranger").unwrap(),
                    profile: ProfileName::new("a").unwrap(),
                    ttl_ms: 1_000,
                };
                let state = SlotState::Open { holder };
                let reports = vec![SlotReport { slot: at.slot, state }];
                Event::LinkUp { container, boot: "1".into(), reports }
            }
        };
        let _ = self.tell(event);
    }

    /// The world comes to its senses: nothing fails any more, all that was lost is told again.
    fn calm(&mut self) {
        self.launches_fail = None;
        self.resets_fail = false;
        self.leases_are_active = false;
        for _ in 0..40 {
            for name in self.servers.keys().cloned().collect::<Vec<_>>() {
                self.link(name);
            }
            self.deliver();
            for lease in self.model.granted() {
                let _ = self.tell(Event::Release { lease });
            }
            self.deliver();
            self.pass(4_000);
            self.deliver();
        }
    }
}

/// The runtime tells the end of a container for sure; the shell answers its own questions.
fn is_sure(event: &Event) -> bool {
    matches!(event, Event::ContainerGone { .. } | Event::LaunchFailed { .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_or_given_twice(
        steps in prop::collection::vec(step(), 0..300)
    ) {
        let mut world = World::new(vec![profile("a", 3, 1, 3), profile("b", 2, 0, 3)]);
        for step in steps {
            world.step(step);
        }
        world.calm();
        prop_assert!(world.model.is_everybody_answered(), "{:?}", world.model.waiting());
        for (_, status) in world.core.status() {
            prop_assert_eq!(status.slots.leased, 0);
            prop_assert_eq!(status.slots.resetting, 0);
            prop_assert_eq!(status.slots.unreachable, 0);
            prop_assert_eq!(status.waiting, 0);
        }
        // The capacity came back: nobody was refused for the lack of it who had the patience.
        world.calm();
        let gang = world.acquire("last", 9);
        world.calm();
        let granted = matches!(world.model.answers[&gang], Answer::Granted(_));
        prop_assert!(granted, "{:?}", world.model.answers[&gang]);
        prop_assert!(!world.model.answers.values().any(|it| *it == Answer::Refused(Refusal::Closing)));
    }
}
