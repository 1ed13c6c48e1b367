//! From the first step to the result.

use super::{
    Attach, Clock, Conclusion, Effect, Failure, Holding, Job, NotMade, Saying, Stream, StreamEnd,
    Student, Who,
    student::{Denied, FAILED},
    vessel::{Next, Vessel},
};
use crate::wire::{FromContainer, RunStudent};
use slotmux_protocol::CausedBy;
use std::time::Duration;

/// From the first request to the engine to the start.
const LAUNCH: Duration = Duration::from_mins(2);

/// A container that has given its result ends by itself by this.
const LEAVE: Duration = Duration::from_secs(10);

/// The engine's event of an end is usually here by this, after the end of the stream.
const LOOK: Duration = Duration::from_millis(100);

const REATTACH: Duration = Duration::from_secs(1);

const CANNOT_CREATE: &str = "Cannot create container.";
const CANNOT_START: &str = "Cannot start container";
const NO_PORTS: &str = "No ports are available right now. Please retry later.";

impl Job {
    pub(super) fn ports_taken(&mut self, who: Who, out: &mut Vec<Effect>) {
        match who {
            Who::Main if self.ports.take() && self.decided.is_none() => self.make_folder(out),
            Who::Main => {}
            Who::Student(id) => {
                let Some(student) = self.students.get_mut(&id) else { return };
                if student.port.take() && !student.vessel.is_gone() {
                    self.create_student(id, out);
                }
            }
        }
    }

    pub(super) fn ports_short(&mut self, who: Who, out: &mut Vec<Effect>) {
        match who {
            Who::Main if self.ports == Holding::Taking => {
                self.ports = Holding::Back;
                self.crash(NO_PORTS, CausedBy::Infra, out);
            }
            Who::Main => {}
            Who::Student(id) => {
                let Some(student) = self.students.get_mut(&id) else { return };
                if student.port == Holding::Taking {
                    student.port = Holding::Back;
                    self.student_over(id, FAILED, out);
                }
            }
        }
    }

    pub(super) fn make_folder(&mut self, out: &mut Vec<Effect>) {
        if self.plan.has_folder {
            self.folder = Holding::Taking;
            out.push(Effect::MakeFolder);
        } else {
            self.make(out);
        }
    }

    pub(super) fn folder_made(&mut self, out: &mut Vec<Effect>) {
        if self.folder.take() && self.decided.is_none() {
            self.make(out);
        }
    }

    pub(super) fn folder_failed(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        if self.folder.take() {
            self.decide(Conclusion::Failed(failure), out);
        }
    }

    fn make(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::SetClock(Clock::Launch, LAUNCH));
        if self.main.is_made() {
            self.stream = Stream::Attaching;
            out.push(Effect::Attach(Attach::First));
        } else {
            self.main.create();
            out.push(Effect::CreateMain);
        }
    }

    pub(super) fn made(&mut self, who: Who, container_id: String, out: &mut Vec<Effect>) {
        let Some(next) = self.vessel(who).map(Vessel::made) else { return };
        match (next, who) {
            (Next::GoOn, Who::Main) => {
                self.stream = Stream::Attaching;
                out.push(Effect::Attach(Attach::First));
            }
            (Next::GoOn, Who::Student(id)) => self.start_student(id, container_id, out),
            (Next::Remove, _) => out.push(Effect::Remove(who)),
            (Next::Nothing | Next::Ended(_), _) => {}
        }
    }

    pub(super) fn not_made(&mut self, who: Who, failure: NotMade, out: &mut Vec<Effect>) {
        let Some(next) = self.vessel(who).map(|it| it.not_made(failure.in_doubt)) else { return };
        tell_failure(who, &failure.why, "create");
        // What the engine refuses at once was asked wrongly.
        let by = if failure.in_doubt { CausedBy::Infra } else { CausedBy::Client };
        let (text, by) = self.why(CANNOT_CREATE, &failure.why, by);
        self.failed(who, next, &text, by, out);
    }

    pub(super) fn attached(&mut self, out: &mut Vec<Effect>) {
        if self.stream != Stream::Attaching {
            return;
        }
        self.stream = Stream::Open;
        if self.decided.is_none() && self.main.is_made() {
            self.main.start();
            out.push(Effect::Start(Who::Main));
        }
    }

    pub(super) fn not_attached(&mut self, why: &str, out: &mut Vec<Effect>) {
        if self.stream != Stream::Attaching {
            return;
        }
        tracing::warn!(why, "not attached to the container");
        self.stream = Stream::Ended;
        if self.decided.is_some() {
            return;
        }
        if self.main.is_made() {
            self.crash(CANNOT_START, CausedBy::Infra, out);
        } else if self.end.is_some() {
            self.conclude_heard(out);
        } else {
            self.look(Who::Main, out);
            out.push(Effect::SetClock(Clock::Reattach, REATTACH));
        }
    }

    pub(super) fn reattach(&mut self, out: &mut Vec<Effect>) {
        if self.stream == Stream::Ended && self.main.is_running() && self.decided.is_none() {
            self.look(Who::Main, out);
        }
    }

    pub(super) fn started(&mut self, who: Who, out: &mut Vec<Effect>) {
        let (soft, hard) = match who {
            Who::Main => (self.plan.soft, self.plan.hard),
            Who::Student(id) => match self.students.get(&id) {
                Some(student) => (student.spec.soft, student.spec.hard),
                None => return,
            },
        };
        let Some(next) = self.vessel(who).map(Vessel::started) else { return };
        if next == Next::GoOn {
            out.extend([Effect::Watch(who, soft), Effect::SetClock(Clock::Hard(who), hard)]);
            // It may have ended before anybody listened.
            if who == Who::Main && self.stream == Stream::Ended {
                self.look(who, out);
            }
        }
        self.after_end(who, next, out);
    }

    pub(super) fn not_started(&mut self, who: Who, why: &str, out: &mut Vec<Effect>) {
        let Some(next) = self.vessel(who).map(Vessel::not_started) else { return };
        tell_failure(who, why, "start");
        // In a runtime's words, on all engines.
        let is_wrong = ["executable file not found", "no such file", "ermission denied"];
        let is_wrong = is_wrong.iter().any(|words| why.contains(words));
        let by = if is_wrong { CausedBy::Client } else { CausedBy::Infra };
        let (text, by) = self.why(CANNOT_START, why, by);
        self.failed(who, next, &text, by, out);
    }

    /// What a failure is called. Who grades is told no more than INGInious tells, and the image is
    /// none of the order's.
    fn why(&self, text: &str, why: &str, by: CausedBy) -> (String, CausedBy) {
        if self.plan.speaks {
            (text.to_owned(), CausedBy::Infra)
        } else {
            (format!("{}: {why}", text.trim_end_matches('.')), by)
        }
    }

    pub(super) fn heard(&mut self, message: FromContainer, out: &mut Vec<Effect>) {
        if self.decided.is_some() {
            return;
        }
        match message {
            FromContainer::Result(result) => {
                if self.result.is_none() {
                    let leave = Effect::SetClock(Clock::Leave, LEAVE);
                    out.extend([leave, Effect::WatchProcesses]);
                }
                self.result = Some(result);
            }
            FromContainer::RunStudent(asked) => self.run_student(&asked, out),
            FromContainer::SshDebug { user, key } => self.ssh(Who::Main, user, key, out),
            FromContainer::SshStudent { user, key, container_id } => {
                let is_it = |it: &Student| it.container_id.as_ref() == Some(&container_id);
                let found = self.students.iter().find(|(_, it)| is_it(it)).map(|(id, _)| *id);
                if let Some(id) = found {
                    self.ssh(Who::Student(id), user, key, out);
                }
            }
        }
    }

    fn ssh(&mut self, who: Who, user: String, key: String, out: &mut Vec<Effect>) {
        let has_port = match who {
            Who::Main => self.ports == Holding::Held,
            Who::Student(id) => self.students.get(&id).is_some_and(|it| it.port == Holding::Held),
        };
        if has_port && !self.ssh_told {
            self.ssh_told = true;
            out.push(Effect::TellSsh { who, user, key });
        }
    }

    fn run_student(&mut self, asked: &RunStudent, out: &mut Vec<Effect>) {
        let Some(rules) = &self.plan.students else { return };
        let spec = match rules.check(asked, self.students.values()) {
            Ok(spec) => spec,
            Err(why) => {
                // As often as a container likes.
                tracing::debug!(%why, "student container denied");
                // Another answer would be taken for that of the first one.
                if why != Denied::Twice {
                    let socket_id = asked.socket_id.clone();
                    out.push(Effect::Say(Saying::StudentEnded { socket_id, code: FAILED }));
                }
                return;
            }
        };
        let id = self.students_made;
        self.students_made = self.students_made.wrapping_add(1);
        let port = if spec.ssh { Holding::Taking } else { Holding::Never };
        let vessel = Vessel::absent();
        let student = Student { spec, vessel, container_id: None, port, mark: None, told: false };
        self.students.insert(id, student);
        match port {
            Holding::Taking => out.push(Effect::TakePorts(Who::Student(id), 1)),
            _ => self.create_student(id, out),
        }
    }

    fn create_student(&mut self, id: u32, out: &mut Vec<Effect>) {
        if let Some(student) = self.students.get_mut(&id) {
            student.vessel.create();
            out.push(Effect::CreateStudent(id, Box::new(student.spec.clone())));
        }
    }

    fn start_student(&mut self, id: u32, container_id: String, out: &mut Vec<Effect>) {
        if let Some(student) = self.students.get_mut(&id) {
            student.vessel.start();
            student.container_id = Some(container_id.clone());
            let socket_id = student.spec.socket_id.clone();
            out.push(Effect::Say(Saying::StudentStarted { socket_id, container_id }));
            out.push(Effect::Start(Who::Student(id)));
        }
    }

    pub(super) fn stream_ended(&mut self, end: StreamEnd, out: &mut Vec<Effect>) {
        if self.stream != Stream::Open {
            return;
        }
        self.stream = Stream::Ended;
        if self.decided.is_some() {
            return;
        }
        match end {
            // What was said before is what it came to.
            _ if self.result.is_some() => self.conclude(out),
            StreamEnd::Faulty(why) => {
                let (end, heard_all) = (self.end, !self.was_cut);
                let unreadable = Some(why);
                self.decide(Conclusion::Ended { end, result: None, unreadable, heard_all }, out);
            }
            StreamEnd::Ended if self.end.is_some() => self.conclude_heard(out),
            StreamEnd::Ended => out.push(Effect::SetClock(Clock::Look, LOOK)),
        }
    }
}

/// A job fails once; its students as often as it likes.
fn tell_failure(who: Who, why: &str, step: &str) {
    match who {
        Who::Main => tracing::warn!(why, step, "container failed before it ran"),
        Who::Student(_) => tracing::debug!(why, step, "student container failed before it ran"),
    }
}
