//! The life of one container, as far as it is known.
//!
//! Invariant: what may have been made is removed, once, and nothing is started that is not wanted
//! any more.

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited {
        code: i64,
        /// The kernel killed for memory in there.
        out_of_memory: bool,
    },
    /// Somebody else removed it.
    Vanished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Absent,
    Creating,
    Made,
    /// It may have ended before the engine has said that it was started.
    Starting(Option<End>),
    Running,
    Ended,
    Removing {
        may_run: bool,
    },
    Gone,
}

#[derive(Debug)]
pub(crate) struct Vessel {
    stage: Stage,
    unwanted: bool,
    look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    No,
    UnderWay,
    /// There was another reason to look while one was under way.
    Again,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// As if nothing had been said.
    Nothing,
    /// What was said is so, and it is wanted.
    GoOn,
    Ended(End),
    Remove,
}

impl Vessel {
    pub(crate) fn absent() -> Self {
        Self { stage: Stage::Absent, unwanted: false, look: Look::No }
    }

    pub(crate) fn running() -> Self {
        Self { stage: Stage::Running, ..Self::absent() }
    }

    /// Made and started by somebody else, and not begun with.
    pub(crate) fn made_ahead() -> Self {
        Self { stage: Stage::Made, ..Self::absent() }
    }

    pub(crate) fn create(&mut self) {
        self.stage = Stage::Creating;
    }

    pub(crate) fn start(&mut self) {
        self.stage = Stage::Starting(None);
    }

    /// Whether it is to be removed now; otherwise it will be said later, if ever.
    pub(crate) fn discard(&mut self) -> bool {
        self.unwanted = true;
        match self.stage {
            Stage::Absent => {
                self.stage = Stage::Gone;
                false
            }
            Stage::Made | Stage::Ended => self.remove(false),
            Stage::Running => self.remove(true),
            // While the engine is at it, it is removed when that is done.
            Stage::Creating | Stage::Starting(_) | Stage::Removing { .. } | Stage::Gone => false,
        }
    }

    pub(crate) fn made(&mut self) -> Next {
        match self.stage {
            Stage::Creating => self.stage = Stage::Made,
            _ => return Next::Nothing,
        }
        self.wanted(Next::GoOn)
    }

    /// `in_doubt`: it may be there nevertheless.
    pub(crate) fn not_made(&mut self, in_doubt: bool) -> Next {
        match self.stage {
            Stage::Creating if in_doubt => self.stage = Stage::Made,
            Stage::Creating => self.stage = Stage::Gone,
            _ => return Next::Nothing,
        }
        self.wanted(Next::GoOn)
    }

    pub(crate) fn started(&mut self) -> Next {
        let Stage::Starting(ended) = self.stage else { return Next::Nothing };
        if let Some(end) = ended {
            self.stage = Stage::Ended;
            self.wanted(Next::Ended(end))
        } else {
            self.stage = Stage::Running;
            self.wanted(Next::GoOn)
        }
    }

    pub(crate) fn not_started(&mut self) -> Next {
        match self.stage {
            Stage::Starting(_) => self.stage = Stage::Made,
            _ => return Next::Nothing,
        }
        self.wanted(Next::GoOn)
    }

    pub(crate) fn ended(&mut self, end: End) -> Next {
        self.look = Look::No;
        match self.stage {
            Stage::Running => {
                self.stage = Stage::Ended;
                self.wanted(Next::Ended(end))
            }
            Stage::Starting(None) => {
                self.stage = Stage::Starting(Some(end));
                Next::Nothing
            }
            Stage::Removing { .. } => {
                self.stage = Stage::Removing { may_run: false };
                Next::Nothing
            }
            Stage::Absent
            | Stage::Creating
            | Stage::Made
            | Stage::Starting(Some(_))
            | Stage::Ended
            | Stage::Gone => Next::Nothing,
        }
    }

    pub(crate) fn removed(&mut self) {
        if matches!(self.stage, Stage::Removing { .. }) {
            self.stage = Stage::Gone;
        }
    }

    /// Whether somebody has to look now at what it does.
    pub(crate) fn may_have_ended(&mut self) -> bool {
        let alive = matches!(self.stage, Stage::Running | Stage::Starting(None));
        match (alive, self.look) {
            (false, _) => false,
            (true, Look::No) => {
                self.look = Look::UnderWay;
                true
            }
            (true, Look::UnderWay | Look::Again) => {
                self.look = Look::Again;
                false
            }
        }
    }

    /// It was looked at, and runs. Whether to look again.
    pub(crate) fn seen_running(&mut self) -> bool {
        let again = self.look == Look::Again;
        self.look = Look::No;
        again && self.may_have_ended()
    }

    /// Whether a process of it may be there.
    pub(crate) fn may_run(&self) -> bool {
        matches!(
            self.stage,
            Stage::Starting(_) | Stage::Running | Stage::Removing { may_run: true }
        )
    }

    pub(crate) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    pub(crate) fn is_made(&self) -> bool {
        self.stage == Stage::Made
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    fn remove(&mut self, may_run: bool) -> bool {
        self.stage = Stage::Removing { may_run };
        true
    }

    fn wanted(&mut self, next: Next) -> Next {
        match self.unwanted && self.discard() {
            true => Next::Remove,
            false if self.unwanted => Next::Nothing,
            false => next,
        }
    }
}
