//! An engine, a disk and a container that do what they like, in any order.

use super::*;

/// How a job comes to its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Begin,
    Warm,
    Adopted,
}

pub(super) struct World {
    job: Job,
    /// Asked for and not yet answered.
    pending: Vec<Effect>,
    containers: BTreeSet<Who>,
    ever_made: BTreeSet<Who>,
    started: BTreeSet<Who>,
    removals: BTreeMap<Who, u32>,
    ports: BTreeMap<Who, i32>,
    folders: i32,
    folder_removals: u32,
    answers: u32,
    overs: u32,
    sockets: u32,
    students_told: BTreeMap<String, u32>,
}

impl World {
    pub(super) fn begin(plan: Plan, from: From) -> Self {
        // Ports are published when a container is made.
        let plan = Plan { ports: if from == From::Warm { 0 } else { plan.ports }, ..plan };
        let ports = plan.ports;
        let (job, effects) = match from {
            From::Begin => Job::begin(plan),
            From::Warm => Job::begin_warm(plan),
            From::Adopted => Job::adopt(plan, 5 * SECOND),
        };
        let mut world = Self {
            job,
            pending: Vec::new(),
            containers: BTreeSet::new(),
            ever_made: BTreeSet::new(),
            started: BTreeSet::new(),
            removals: BTreeMap::new(),
            ports: BTreeMap::new(),
            folders: 0,
            folder_removals: 0,
            answers: 0,
            overs: 0,
            sockets: 0,
            students_told: BTreeMap::new(),
        };
        if from != From::Begin {
            world.containers.insert(Who::Main);
            world.ever_made.insert(Who::Main);
            world.started.insert(Who::Main);
        }
        if from == From::Adopted {
            world.folders = 1;
            world.ports.insert(Who::Main, i32::from(ports > 0));
        }
        world.take(effects);
        world
    }

    fn tell(&mut self, event: Event) {
        let effects = self.job.apply(event);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert_eq!(self.overs, 0, "after the end: {effect:?}");
            match &effect {
                Effect::Answer(_) => self.answers += 1,
                Effect::Over => self.overs += 1,
                Effect::GivePorts(who) => *self.ports.entry(*who).or_default() -= 1,
                Effect::Start(who) => {
                    assert!(self.job.decided.is_none(), "started though it is decided");
                    assert!(self.containers.contains(who), "{who:?} is not there");
                    self.pending.push(effect);
                }
                Effect::Remove(who) => {
                    *self.removals.entry(*who).or_default() += 1;
                    self.pending.push(effect);
                }
                Effect::Say(Saying::StudentEnded { socket_id, .. }) => {
                    *self.students_told.entry(socket_id.clone()).or_default() += 1;
                }
                Effect::Say(_) | Effect::TellSsh { .. } | Effect::Watch(..) => {}
                _ => self.pending.push(effect),
            }
        }
    }

    /// Does something of what could be done next.
    pub(super) fn step(&mut self, what: u8, which: u8) {
        if what < 150 && !self.pending.is_empty() {
            let effect = self.pending.remove(usize::from(which) % self.pending.len());
            return self.answer(effect, !what.is_multiple_of(4));
        }
        let who = match which % 3 {
            0 | 1 => Who::Main,
            _ => Who::Student(u32::from(which / 3) % 4),
        };
        let event = match what % 14 {
            0 => Event::KillAsked,
            1 => Event::CpuUp(who),
            2 => Event::MemoryUp(who),
            3 => Event::TimeUp(Clock::Hard(who)),
            4 => Event::Heard(result()),
            5 | 6 => {
                self.sockets += 1;
                let ssh = which.is_multiple_of(2);
                let asked = RunStudent { ssh, ..wish(&format!("s{}", self.sockets)) };
                Event::Heard(FromContainer::RunStudent(asked))
            }
            7 => Event::StreamEnded(StreamEnd::Ended),
            8 => Event::StreamEnded(StreamEnd::Faulty(String::new())),
            9 if self.started.contains(&who) => Event::Died(who, 1),
            10 => Event::MayHaveEnded(who),
            11 => Event::TimeUp(Clock::Patience),
            12 => Event::TimeUp(Clock::Launch),
            // Too late, twice, or about nothing.
            _ => match which % 8 {
                0 => Event::Attached,
                1 => Event::Runs(who),
                2 => Event::Recovered(None),
                3 => Event::TimeUp(Clock::Drain),
                5 => Event::Away(who),
                6 => Event::Emptied,
                4 => Event::NotAttached(String::new()),
                _ => Event::TimeUp(Clock::Reattach),
            },
        };
        self.tell(event);
    }

    fn answer(&mut self, effect: Effect, well: bool) {
        let event = match effect {
            Effect::TakePorts(who, _) if well => {
                *self.ports.entry(who).or_default() += 1;
                Event::PortsTaken(who)
            }
            Effect::TakePorts(who, _) => Event::PortsShort(who),
            Effect::MakeFolder => {
                self.folders += 1;
                let (text, caused_by) = (String::new(), CausedBy::Infra);
                if well {
                    Event::FolderMade
                } else {
                    Event::FolderFailed(Failure { text, caused_by })
                }
            }
            Effect::RemoveFolder => {
                assert!(self.containers.is_empty(), "it is mounted");
                self.folders -= 1;
                self.folder_removals += 1;
                Event::FolderRemoved
            }
            Effect::CreateMain => self.made(Who::Main, well),
            Effect::CreateStudent(id, _) => self.made(Who::Student(id), well),
            Effect::Attach(_) if well => Event::Attached,
            Effect::Attach(_) => Event::NotAttached(String::new()),
            Effect::Start(who) if well => {
                self.started.insert(who);
                Event::Started(who)
            }
            Effect::Start(who) => Event::NotStarted(who, String::new()),
            Effect::SetClock(clock, _) => Event::TimeUp(clock),
            Effect::WatchProcesses => Event::Emptied,
            Effect::Look(who) if well => Event::Ended(who, exited(0)),
            Effect::Look(who) => Event::Runs(who),
            Effect::Remove(who) => {
                self.containers.remove(&who);
                Event::Removed(who)
            }
            Effect::Recover => Event::Recovered(None),
            Effect::GivePorts(_)
            | Effect::Say(_)
            | Effect::Watch(..)
            | Effect::TellSsh { .. }
            | Effect::Answer(_)
            | Effect::Over => unreachable!("nobody answers it"),
        };
        self.tell(event);
    }

    fn made(&mut self, who: Who, well: bool) -> Event {
        // One that failed may be there nevertheless.
        self.containers.insert(who);
        self.ever_made.insert(who);
        if well {
            Event::Made(who, format!("{who:?}"))
        } else {
            Event::NotMade(who, NotMade { why: String::new(), in_doubt: true })
        }
    }

    /// Time goes by, and everything that was asked for is answered in the end.
    pub(super) fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.overs > 0 {
                return;
            }
            assert!(!self.pending.is_empty(), "nobody waits for anything: {:?}", self.job);
            let effect = self.pending.remove(0);
            self.answer(effect, true);
        }
        panic!("it never ends: {:?}", self.job);
    }

    pub(super) fn check(&self) {
        assert_eq!((self.answers, self.overs), (1, 1));
        assert!(self.containers.is_empty(), "left: {:?}", self.containers);
        assert!(self.removals.values().all(|it| *it == 1), "{:?}", self.removals);
        assert!(self.removals.keys().eq(&self.ever_made), "{:?}", self.removals);
        assert!(self.ports.values().all(|it| *it == 0), "{:?}", self.ports);
        assert!(self.folders == 0 && self.folder_removals <= 1);
        assert!(self.students_told.values().all(|it| *it == 1), "{:?}", self.students_told);
    }
}
