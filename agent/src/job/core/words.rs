//! What a job is told, and what it asks for.

use super::{End, student::StudentSpec};
use crate::wire::FromContainer;
use rmpv::Value;
use slotmux_protocol::CausedBy;
use std::time::Duration;

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
    /// The kernel has ended something in there for memory, maybe not all of it.
    MemorySeen(Who),
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
    pub(crate) caused_by: CausedBy,
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
    /// From an end by SIGKILL to the news that it was for memory, which may come after it.
    Doubt,
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
