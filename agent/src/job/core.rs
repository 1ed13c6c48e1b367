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
mod words;

pub(crate) use plan::Plan;
pub(crate) use vessel::End;
pub(crate) use words::{
    Attach, Clock, Conclusion, Effect, Event, Failure, Mark, NotMade, Saying, StreamEnd, Who,
};

use rmpv::Value;
use std::{collections::BTreeMap, time::Duration};
use student::Student;
use vessel::{Next, Vessel};

/// What is on its way from a container is here by this.
const SETTLE: Duration = Duration::from_millis(5);

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
    /// Something in the main container was ended for memory.
    memory_was_short: bool,
    /// Whether news of that are waited for.
    doubting: bool,
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
            memory_was_short: false,
            doubting: false,
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
            Event::MemorySeen(who) => self.memory_seen(who, &mut out),
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
