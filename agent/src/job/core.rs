//! A job as a state machine: events in, effects out; no clock, no I/O.
//!
//! Invariants: whatever events come, in whatever order, there is exactly one [`Effect::Answer`];
//! whatever was taken (ports, a folder, containers) is given back, once, before [`Effect::Over`];
//! nothing is started after the job was decided.

mod close;
mod grading;
mod plan;
pub(crate) mod student;
#[cfg(test)]
mod tests;
mod vessel;

pub(crate) use plan::Plan;
pub(crate) use vessel::End;

use crate::wire::FromContainer;
use rmpv::Value;
use std::{collections::BTreeMap, time::Duration};
use student::{Student, StudentSpec};
use vessel::{Next, Vessel};

/// What is on its way from a container is here by this.
const SETTLE: Duration = Duration::from_millis(5);

/// Which container of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Main,
    Student(u32),
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    PortsTaken(Who),
    PortsShort(Who),
    FolderMade,
    /// Something of it may be there.
    FolderFailed(Failure),
    /// With the engine's id of it.
    Made(Who, String),
    NotMade(Who, NotMade),
    /// At the first time, it was told what to do.
    Attached,
    NotAttached(String),
    Started(Who),
    NotStarted(Who, String),
    Heard(FromContainer),
    StreamEnded(StreamEnd),
    /// By an event of the engine's.
    Died(Who, i64),
    /// It was said that something may have happened.
    MayHaveEnded(Who),
    /// It was looked at.
    Ended(Who, End),
    Runs(Who),
    /// The engine did not answer when it was asked.
    Away(Who),
    Removed(Who),
    FolderRemoved,
    /// No process is left in the main container: it says nothing any more, though its stream may
    /// take a while to end.
    Emptied,
    /// What was left in a container that could not be heard.
    Recovered(Option<Value>),
    TimeUp(Clock),
    CpuUp(Who),
    MemoryUp(Who),
    KillAsked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotMade {
    pub(crate) why: String,
    /// It may be there nevertheless.
    pub(crate) in_doubt: bool,
}

/// Why a job is not run, as people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) caused_by: slotmux_protocol::CausedBy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// By the container, or because a connection broke.
    Ended,
    /// What came is no protocol.
    Faulty(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Clock {
    /// To the start of the container.
    Launch,
    Hard(Who),
    /// From the result to the container's end.
    Leave,
    /// From the end of all processes to that of what they have said.
    Settle,
    /// From the container's end to that of its stream.
    Drain,
    /// From the end of the stream to that of the container.
    Look,
    Reattach,
    /// From the decision to the end of what runs.
    Patience,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Answered by `PortsTaken` or `PortsShort`.
    TakePorts(Who, usize),
    GivePorts(Who),
    /// Answered by `FolderMade` or `FolderFailed`.
    MakeFolder,
    /// Answered by `FolderRemoved`.
    RemoveFolder,
    /// Answered by `Made` or `NotMade`.
    CreateMain,
    CreateStudent(u32, Box<StudentSpec>),
    /// Answered by `Attached` or `NotAttached`.
    Attach(Attach),
    /// Answered by `Started` or `NotStarted`.
    Start(Who),
    Say(Saying),
    /// Its use of processor time and memory.
    Watch(Who, Duration),
    /// Until no process is left in the main container. May be answered by `Emptied`.
    WatchProcesses,
    SetClock(Clock, Duration),
    /// Answered by `Ended` or `Runs`.
    Look(Who),
    /// By force. Answered by `Removed`.
    Remove(Who),
    /// Answered by `Recovered`.
    Recover,
    TellSsh {
        who: Who,
        user: String,
        key: String,
    },
    Answer(Conclusion),
    /// Nothing is left, and nothing comes after this.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attach {
    First,
    Again,
}

/// To the grading container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Saying {
    StudentStarted { socket_id: String, container_id: String },
    StudentEnded { socket_id: String, code: i64 },
}

/// What the job came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Conclusion {
    Failed(Failure),
    Marked(Mark),
    Ended {
        end: Option<End>,
        result: Option<Value>,
        /// What came instead of a result.
        unreadable: Option<String>,
        /// Whether nothing that it said can have been missed.
        heard_all: bool,
    },
}

/// A later one overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Timeout,
    Overflow,
    Killed,
}

/// Something that is taken and has to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    Never,
    Taking,
    Held,
    Returning,
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Unopened,
    Attaching,
    Open,
    Ended,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and only ever set")]
#[derive(Debug)]
pub(crate) struct Job {
    plan: Plan,
    main: Vessel,
    folder: Holding,
    ports: Holding,
    students: BTreeMap<u32, Student>,
    students_made: u32,
    stream: Stream,
    /// Something that the container said may have been missed.
    was_cut: bool,
    result: Option<Value>,
    ssh_told: bool,
    end: Option<End>,
    recovering: bool,
    decided: Option<Conclusion>,
    answered: bool,
    over: bool,
}

impl Job {
    pub(crate) fn begin(plan: Plan) -> (Self, Vec<Effect>) {
        let mut job = Self::new(plan);
        let mut out = Vec::new();
        if job.plan.ports > 0 {
            job.ports = Holding::Taking;
            out.push(Effect::TakePorts(Who::Main, job.plan.ports));
        } else {
            job.make_folder(&mut out);
        }
        (job, out)
    }

    /// In a container that was made and started ahead, and waits to be told what to do.
    pub(crate) fn begin_warm(plan: Plan) -> (Self, Vec<Effect>) {
        let mut job = Self::new(plan);
        job.main = Vessel::made_ahead();
        let mut out = Vec::new();
        job.make_folder(&mut out);
        (job, out)
    }

    /// Of an agent before this one; it was running when it was last seen.
    pub(crate) fn adopt(plan: Plan, hard_left: Duration) -> (Self, Vec<Effect>) {
        let mut job = Self::new(plan);
        job.main = Vessel::running();
        job.folder = if job.plan.has_folder { Holding::Held } else { Holding::Never };
        job.ports = if job.plan.ports > 0 { Holding::Held } else { Holding::Never };
        job.stream = Stream::Attaching;
        job.was_cut = true;
        let mut out = vec![
            Effect::Attach(Attach::Again),
            Effect::Watch(Who::Main, job.plan.soft),
            Effect::SetClock(Clock::Hard(Who::Main), hard_left),
        ];
        job.look(Who::Main, &mut out);
        (job, out)
    }

    fn new(plan: Plan) -> Self {
        Self {
            plan,
            main: Vessel::absent(),
            folder: Holding::Never,
            ports: Holding::Never,
            students: BTreeMap::new(),
            students_made: 0,
            stream: Stream::Unopened,
            was_cut: false,
            result: None,
            ssh_told: false,
            end: None,
            recovering: false,
            decided: None,
            answered: false,
            over: false,
        }
    }

    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::PortsTaken(who) => self.ports_taken(who, &mut out),
            Event::PortsShort(who) => self.ports_short(who, &mut out),
            Event::FolderMade => self.folder_made(&mut out),
            Event::FolderFailed(failure) => self.folder_failed(failure, &mut out),
            Event::FolderRemoved => self.folder.gave_back(),
            Event::Made(who, id) => self.made(who, id, &mut out),
            Event::NotMade(who, failure) => self.not_made(who, failure, &mut out),
            Event::Attached => self.attached(&mut out),
            Event::NotAttached(why) => self.not_attached(&why, &mut out),
            Event::Started(who) => self.started(who, &mut out),
            Event::NotStarted(who, why) => self.not_started(who, &why, &mut out),
            Event::Heard(message) => self.heard(message, &mut out),
            Event::StreamEnded(end) => self.stream_ended(end, &mut out),
            Event::Died(who, _) if self.plan.inspects => self.look(who, &mut out),
            Event::Died(who, code) => {
                self.ended(who, End::Exited { code, out_of_memory: false }, &mut out);
            }
            Event::MayHaveEnded(who) => self.look(who, &mut out),
            Event::Ended(who, end) => self.ended(who, end, &mut out),
            Event::Runs(who) => self.runs(who, &mut out),
            // What the container says meanwhile is not heard.
            Event::Away(who) => self.was_cut |= who == Who::Main && self.stream == Stream::Ended,
            Event::Removed(who) => self.removed(who),
            Event::Emptied if self.decided.is_none() && self.result.is_some() => {
                out.push(Effect::SetClock(Clock::Settle, SETTLE));
            }
            Event::Emptied => {}
            Event::Recovered(result) => self.recovered(result, &mut out),
            Event::TimeUp(clock) => self.time_up(clock, &mut out),
            Event::CpuUp(who) => self.marked(who, Mark::Timeout, &mut out),
            Event::MemoryUp(who) => self.marked(who, Mark::Overflow, &mut out),
            Event::KillAsked => self.marked(Who::Main, Mark::Killed, &mut out),
        }
        self.settle(&mut out);
        out
    }

    /// Whether the job is decided: what was asked for is not wanted any more.
    pub(crate) fn is_decided(&self) -> bool {
        self.decided.is_some()
    }

    fn vessel(&mut self, who: Who) -> Option<&mut Vessel> {
        match who {
            Who::Main => Some(&mut self.main),
            Who::Student(id) => self.students.get_mut(&id).map(|it| &mut it.vessel),
        }
    }

    fn look(&mut self, who: Who, out: &mut Vec<Effect>) {
        if self.vessel(who).is_some_and(Vessel::may_have_ended) {
            out.push(Effect::Look(who));
        }
    }

    fn runs(&mut self, who: Who, out: &mut Vec<Effect>) {
        if self.vessel(who).is_some_and(Vessel::seen_running) {
            out.push(Effect::Look(who));
        }
        let deaf = who == Who::Main && self.stream == Stream::Ended && self.main.is_running();
        if deaf && self.decided.is_none() {
            self.was_cut = true;
            self.stream = Stream::Attaching;
            out.push(Effect::Attach(Attach::Again));
        }
    }

    fn removed(&mut self, who: Who) {
        if let Some(vessel) = self.vessel(who) {
            vessel.removed();
        }
    }

    fn ended(&mut self, who: Who, end: End, out: &mut Vec<Effect>) {
        let Some(vessel) = self.vessel(who) else { return };
        let next = vessel.ended(end);
        self.after_end(who, next, out);
    }

    fn after_end(&mut self, who: Who, next: Next, out: &mut Vec<Effect>) {
        match (next, who) {
            (Next::Ended(end), Who::Main) => self.main_ended(end, out),
            (Next::Ended(end), Who::Student(id)) => self.student_ended(id, end, out),
            (Next::Remove, _) => out.push(Effect::Remove(who)),
            (Next::Nothing | Next::GoOn, _) => {}
        }
    }
}

impl Holding {
    fn take(&mut self) -> bool {
        let taking = *self == Self::Taking;
        if taking {
            *self = Self::Held;
        }
        taking
    }

    /// Whether it is to be given back now.
    fn give_back(&mut self) -> bool {
        let held = *self == Self::Held;
        if held {
            *self = Self::Returning;
        }
        held
    }

    fn gave_back(&mut self) {
        if *self == Self::Returning {
            *self = Self::Back;
        }
    }

    fn is_none(self) -> bool {
        matches!(self, Self::Never | Self::Back)
    }
}
