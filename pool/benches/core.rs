//! The state core alone: events a second at 1,000 and at 100,000 slots, and the ratio of the two.
//!
//! `cargo bench -p slotmux-pool --bench core`

use criterion::{Criterion, Throughput, criterion_group};
use slotmux_pool::core::{
    Acquire, Core, Effect, Event, Millis, ProfileKey, ProfileSettings, Recovered, Settings,
    WaiterId,
};
use slotmux_protocol::{
    Epoch, LeaseId, ProfileName, SlotIndex, TrajectoryId,
    link::{SlotReport, SlotState},
};
use std::{hint::black_box, time::Duration};

const SLOTS_PER_CONTAINER: u16 = 8;
const STEPS: u32 = 250_000;
/// Acquire, opened, renew, release, clean.
const EVENTS_PER_STEP: u32 = 5;

/// Rollouts come and go at random, with nine slots of ten taken.
struct Load {
    core: Core,
    now: Millis,
    effects: Vec<Effect>,
    held: Vec<LeaseId>,
    asked: u64,
    random: u64,
}

impl Load {
    fn new(slots: u32) -> Self {
        let containers = slots / u32::from(SLOTS_PER_CONTAINER);
        let profile = ProfileSettings {
            name: ProfileName::new("default").expect("a name"),
            slots_per_container: SLOTS_PER_CONTAINER,
            containers_min: containers,
            containers_max: containers,
            headroom_slots: 0,
            cooldown_ms: 60_000,
            start_timeout_ms: 60_000,
            retire_after_ms: 1 << 40,
            backoff_min_ms: 100,
            backoff_max_ms: 1_000,
        };
        let settings = Settings {
            name_stem: "bench".into(),
            profiles: vec![profile],
            dead_after_ms: 5_000,
            reset_timeout_ms: 60_000,
            ended_max: 65_536,
        };
        let now = Millis(1 << 40);
        let mut effects = Vec::new();
        let core = Core::start(settings, Recovered::default(), Vec::new(), now, &mut effects);
        let mut load =
            Self { core, now, effects, held: Vec::new(), asked: 0, random: 0x1234_5678_9abc_def1 };
        load.link_all();
        for _ in 0..slots / 10 * 9 {
            load.acquire();
        }
        load
    }

    fn link_all(&mut self) {
        let keys: Vec<_> = self.core.containers().map(|(key, _)| key).collect();
        let clean = |slot| SlotReport {
            slot: SlotIndex(slot),
            state: SlotState::Clean { fence: Epoch(0) },
        };
        for container in keys {
            let reports = (0..SLOTS_PER_CONTAINER).map(clean).collect();
            self.tell(Event::LinkUp { container, boot: "1".into(), reports });
        }
    }

    fn tell(&mut self, event: Event) {
        self.effects.clear();
        self.core.apply(self.now, event, &mut self.effects).expect("all of it is right");
    }

    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 11).unwrap_or(0) % end
    }

    fn acquire(&mut self) {
        self.asked += 1;
        self.tell(Event::Acquire(Acquire {
            waiter: WaiterId(self.asked),
            profile: ProfileKey(0),
            trajectory: name(self.asked),
            count: 1,
            priority: 0,
            deadline: self.now.plus(30_000),
            ttl_ms: 600_000,
        }));
        let opened = self.effects.iter().find_map(|effect| match effect {
            Effect::Open { at, lease, .. } => Some((*at, *lease)),
            _ => None,
        });
        let (at, lease) = opened.expect("a slot is free");
        self.tell(Event::Opened { at, epoch: lease.epoch() });
        self.held.push(lease);
    }

    fn release(&mut self) {
        let place = self.below(self.held.len());
        let lease = self.held.swap_remove(place);
        self.tell(Event::Release { lease });
        let reset = self.effects.iter().find_map(|effect| match effect {
            Effect::Reset { at, epoch } => Some((*at, *epoch)),
            _ => None,
        });
        let (at, epoch) = reset.expect("it is reset");
        self.tell(Event::Clean { at, epoch });
    }

    fn step(&mut self) {
        self.acquire();
        let place = self.below(self.held.len());
        self.tell(Event::Renew { lease: self.held[place], ttl_ms: None });
        self.release();
        if self.asked.is_multiple_of(64) {
            self.now = self.now.plus(1);
            self.tell(Event::Tick);
        }
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
        black_box(&self.core);
    }
}

/// Each request brings a name of its own, as from a socket.
fn name(number: u64) -> TrajectoryId {
    let mut text = *b"trajectory-0000000000000000";
    for (place, digit) in text[11..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * place) & 15) as usize];
    }
    TrajectoryId::new(std::str::from_utf8(&text).expect("it is ASCII")).expect("a name")
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    group.throughput(Throughput::Elements(u64::from(EVENTS_PER_STEP)));
    for slots in [1_000, 100_000] {
        let mut load = Load::new(slots);
        group.bench_function(format!("{slots} slots"), |bencher| bencher.iter(|| load.step()));
    }
    group.finish();
}

/// The least of several turns, taken by both sizes in alternation.
fn ratio() {
    let mut loads = [Load::new(1_000), Load::new(100_000)];
    let mut best = [Duration::MAX; 2];
    for _ in 0..7 {
        for (load, best) in loads.iter_mut().zip(&mut best) {
            let start = cpu_time();
            load.run(STEPS);
            *best = (*best).min(cpu_time().saturating_sub(start));
        }
    }
    let events = f64::from(STEPS * EVENTS_PER_STEP);
    let [small, large] = best.map(|time| time.as_secs_f64() / events);
    report(&format!(
        "core: {:.0} events/s at 1,000 slots, {:.0} events/s at 100,000 slots, cost ratio {:.2}",
        1.0 / small,
        1.0 / large,
        large / small
    ));
}

/// Of this thread: what else the machine does is not counted.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time since the start")
}

#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn report(line: &str) {
    println!("{line}");
}

criterion_group!(benches, events);

fn main() {
    benches();
    ratio();
    Criterion::default().configure_from_args().final_summary();
}
