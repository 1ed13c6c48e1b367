//! From the decision to the end: the answer, and everything given back.

use super::{
    Clock, Conclusion, Effect, End, Failure, Holding, Job, Mark, Stream, Who, student, vessel::Next,
};
use rmpv::Value;
use slotmux_protocol::CausedBy;
use std::time::Duration;

/// What runs is waited for this long, before an engine that does not say that it has ended it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container that has ended has said what it had to say by this.
const DRAIN: Duration = Duration::from_secs(5);

/// The engine hears of a lack of memory and of an end by two ways, which may overtake each other.
const DOUBT: Duration = Duration::from_millis(250);

/// The exit code of what SIGKILL has ended.
const KILLED: i64 = 137;

impl Job {
    pub(super) fn crash(&mut self, text: impl Into<String>, by: CausedBy, out: &mut Vec<Effect>) {
        self.decide(Conclusion::Failed(Failure { text: text.into(), caused_by: by }), out);
    }

    /// The first decision stands, except that one mark may override another.
    pub(super) fn decide(&mut self, conclusion: Conclusion, out: &mut Vec<Effect>) {
        if self.answered {
            return;
        }
        match (&mut self.decided, conclusion) {
            (Some(Conclusion::Marked(old)), Conclusion::Marked(new)) => *old = new.max(*old),
            (Some(_), _) => {}
            (none @ None, conclusion) => {
                *none = Some(conclusion);
                self.discard_all(out);
            }
        }
    }

    fn discard_all(&mut self, out: &mut Vec<Effect>) {
        if self.main.discard() {
            out.push(Effect::Remove(Who::Main));
        }
        for (id, student) in &mut self.students {
            if student.vessel.discard() {
                out.push(Effect::Remove(Who::Student(*id)));
            }
        }
        if self.main.may_run() {
            out.push(Effect::SetClock(Clock::Patience, PATIENCE));
        }
    }

    /// A limit was met, or somebody wants it to end.
    pub(super) fn marked(&mut self, who: Who, mark: Mark, out: &mut Vec<Effect>) {
        match who {
            Who::Student(id) => self.student_marked(id, mark, out),
            // What it said before is what it came to.
            Who::Main if mark != Mark::Killed && self.result.is_some() => self.conclude(out),
            Who::Main => self.decide(Conclusion::Marked(mark), out),
        }
    }

    pub(super) fn main_ended(&mut self, end: End, out: &mut Vec<Effect>) {
        self.end = Some(end);
        match self.stream {
            Stream::Ended | Stream::Unopened => self.conclude_heard(out),
            Stream::Open | Stream::Attaching => out.push(Effect::SetClock(Clock::Drain, DRAIN)),
        }
    }

    /// It has ended, and everything was heard that could be heard.
    pub(super) fn conclude_heard(&mut self, out: &mut Vec<Effect>) {
        let may_be_left = self.plan.speaks && self.was_cut && self.result.is_none();
        if may_be_left && self.end != Some(End::Vanished) && self.decided.is_none() {
            if !self.recovering {
                self.recovering = true;
                out.push(Effect::Recover);
                out.push(Effect::SetClock(Clock::Drain, DRAIN));
            }
            return;
        }
        if self.is_in_doubt() {
            if !self.doubting {
                self.doubting = true;
                out.push(Effect::SetClock(Clock::Doubt, DOUBT));
            }
            return;
        }
        self.conclude(out);
    }

    /// It was killed, not by us, and nobody has said yet what for.
    fn is_in_doubt(&self) -> bool {
        let is_killed =
            matches!(self.end, Some(End::Exited { code: KILLED, out_of_memory: false }));
        is_killed && !self.memory_was_short && self.result.is_none() && self.decided.is_none()
    }

    pub(super) fn memory_seen(&mut self, who: Who, out: &mut Vec<Effect>) {
        if who == Who::Main {
            self.memory_was_short = true;
            if self.doubting {
                self.conclude(out);
            }
        }
    }

    pub(super) fn recovered(&mut self, result: Option<Value>, out: &mut Vec<Effect>) {
        if self.recovering && self.decided.is_none() {
            self.result = self.result.take().or(result);
            self.conclude(out);
        }
    }

    pub(super) fn conclude(&mut self, out: &mut Vec<Effect>) {
        if self.decided.is_some() {
            return;
        }
        let result = self.result.take();
        if let Some(End::Exited { code: KILLED, out_of_memory }) = &mut self.end {
            *out_of_memory |= self.memory_was_short;
        }
        let memory = matches!(self.end, Some(End::Exited { out_of_memory: true, .. }));
        let conclusion = match result {
            None if memory && self.plan.speaks => Conclusion::Marked(Mark::Overflow),
            result => Conclusion::Ended {
                end: self.end,
                result,
                unreadable: None,
                heard_all: !self.was_cut,
            },
        };
        self.decide(conclusion, out);
    }

    pub(super) fn time_up(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        match clock {
            // Its start was not answered: it may run, and is removed when that is known.
            Clock::Launch if !self.main.is_running() && self.end.is_none() => {
                self.crash("Cannot start container", CausedBy::Infra, out);
            }
            Clock::Hard(who) => self.marked(who, Mark::Timeout, out),
            Clock::Settle if self.result.is_none() => {}
            Clock::Doubt if self.end.is_none() => {}
            Clock::Leave | Clock::Settle | Clock::Doubt => self.conclude(out),
            Clock::Drain if self.end.is_some() => self.conclude(out),
            Clock::Launch | Clock::Drain => {}
            Clock::Look => self.look(Who::Main, out),
            Clock::Reattach => self.reattach(out),
            Clock::Patience => self.answer(out),
        }
    }

    /// What holds after every event.
    pub(super) fn settle(&mut self, out: &mut Vec<Effect>) {
        if self.decided.is_none() {
            self.forget_students(out);
            return;
        }
        // Nothing can be added to a result.
        let has_result = matches!(self.decided, Some(Conclusion::Ended { result: Some(_), .. }));
        if has_result || !self.main.may_run() {
            self.answer(out);
        }
        self.forget_students(out);
        if self.main.is_gone() && self.students.is_empty() {
            if self.folder.give_back() {
                out.push(Effect::RemoveFolder);
            }
            if self.ports.give_back() {
                self.ports.gave_back();
                out.push(Effect::GivePorts(Who::Main));
            }
            let nothing_left = self.folder.is_none() && self.ports.is_none();
            if nothing_left && self.answered && !self.over {
                self.over = true;
                out.push(Effect::Over);
            }
        }
    }

    fn answer(&mut self, out: &mut Vec<Effect>) {
        if self.answered || self.decided.is_none() {
            return;
        }
        self.answered = true;
        // A result may be large, and is told once: what stays is that there was a decision.
        let told = self.decided.replace(Conclusion::Marked(Mark::Killed));
        out.extend(told.map(Effect::Answer));
    }

    /// Gives back what those had that are gone.
    fn forget_students(&mut self, out: &mut Vec<Effect>) {
        self.students.retain(|id, student| {
            if !student.vessel.is_gone() {
                return true;
            }
            if student.port.give_back() {
                student.port.gave_back();
                out.push(Effect::GivePorts(Who::Student(*id)));
            }
            // One that is being taken comes yet.
            student.port == Holding::Taking
        });
    }

    pub(super) fn student_marked(&mut self, id: u32, mark: Mark, out: &mut Vec<Effect>) {
        let Some(student) = self.students.get_mut(&id) else { return };
        student.mark = student.mark.max(Some(mark));
        self.student_over(id, 0, out);
    }

    pub(super) fn student_ended(&mut self, id: u32, end: End, out: &mut Vec<Effect>) {
        let code = match end {
            End::Exited { out_of_memory: true, .. } => student::OUT_OF_MEMORY,
            End::Exited { code, .. } => code,
            End::Vanished => student::FAILED,
        };
        self.student_over(id, code, out);
    }

    /// Tells its code once, and has it removed.
    pub(super) fn student_over(&mut self, id: u32, code: i64, out: &mut Vec<Effect>) {
        let is_decided = self.is_decided();
        let Some(student) = self.students.get_mut(&id) else { return };
        let code = match student.mark {
            Some(Mark::Timeout) => student::OUT_OF_TIME,
            Some(Mark::Overflow) => student::OUT_OF_MEMORY,
            Some(Mark::Killed) => student::FAILED,
            None => code,
        };
        if !student.told {
            student.told = true;
            if !is_decided {
                let socket_id = student.spec.socket_id.clone();
                out.push(Effect::Say(super::Saying::StudentEnded { socket_id, code }));
            }
        }
        if student.vessel.discard() {
            out.push(Effect::Remove(Who::Student(id)));
        }
    }

    /// What a container's news comes to when it failed before it ran.
    pub(super) fn failed(
        &mut self,
        who: Who,
        next: Next,
        text: &str,
        by: CausedBy,
        out: &mut Vec<Effect>,
    ) {
        match (next, who) {
            (Next::GoOn, Who::Main) => self.crash(text, by, out),
            (Next::GoOn, Who::Student(id)) => self.student_over(id, student::FAILED, out),
            (Next::Remove, _) => out.push(Effect::Remove(who)),
            (Next::Nothing | Next::Ended(_), _) => {}
        }
    }
}
