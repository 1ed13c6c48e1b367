//! The tool `terminal`: programs behind a terminal with a screen, which live until the lease ends.
//!
//! A session is a process on a pseudo-terminal (see `slot::session`) whose output a task of the
//! server takes, shows on a screen and records. At most [`SESSIONS_MAX`] in a slot. What one holds
//! is bounded: 2 MiB of scrollback, 1 MiB of output for `read`, 2 MiB of recording, and two
//! screens of eight bytes for each cell: about 5 MiB, and 13 MiB with a screen of 500 by 1,000.
//!
//! What calls answer: text in `output`, and in `data` for every action but `list`
//!
//! - `session`, `rows`, `cols`, `cursor` (`row` and `col` from 0 on, `hidden`), `title`,
//!   `alternate_screen`: a full-screen program is shown;
//! - `running`; `end` in words when the program has ended, with its `exit_code` or `signal`;
//! - `done`: the shell is at its prompt with nothing left to do, or the program has ended;
//!   `exit_code` then is that of the shell's last command. Exact for the shell that `start` runs
//!   without a `command`, and for a `bash` as the command, as long as they keep their
//!   `PROMPT_COMMAND`: they say so themselves. Another program is done when it has ended;
//! - `truncated`: something is missing in `output`. Of `read` and `cast` with `offset`,
//!   `next_offset` and `dropped_bytes` (too old to be kept any more), of `capture` with
//!   `lines_cut`.
//!
//! `start` and `stop` answer with the visible screen, `send_keys` and `wait` with what was printed
//! meanwhile (`offset` and so on as of `read`, whose place it does not move), `read` with what was
//! printed, escape sequences included, `cast` with whole lines.
//!
//! A wait ends at `max_wait_ms` as a success that is not `done`; at the call's own time-out as
//! `timeout`. Neither ends the session, nor does a cancel. For a program that makes no marks, a
//! wait also ends when another process group had the terminal meanwhile and it is back. A
//! time-out of another tool that kills the slot's processes ends its sessions, too: they say so,
//! and their screens can be read until `stop` or the reset.

mod answer;
mod cast;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod keys;
mod log;
mod pump;
mod screen;
mod session;
mod shell;
mod sieve;
mod state;
mod tmux;

#[cfg(feature = "fuzzing")]
pub(crate) use fuzz::output as fuzz_output;
pub(crate) use tmux::TmuxArgs;

use crate::{
    outcome::Outcome,
    slot::{InitError, InitProcess, SpawnError},
    stop::Stop,
};
use answer::Answer;
use screen::{COLS_MAX, ROWS_MAX, Size};
use session::{Bounds, Cut, Session, Start, Told, TypeError, Wait};
use slotmux_protocol::{
    CallLimits, CausedBy, Code, Ended, Network, Problem, TerminalAction, TerminalArgs,
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

/// What programs are told that they print to.
const TERM: &str = "xterm-256color";
const SESSIONS_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 32;
const NAME_DEFAULT: &str = "main";
const ROWS_DEFAULT: u16 = 24;
const COLS_DEFAULT: u16 = 80;
const ANSWER_BYTES_DEFAULT: usize = 100_000;
const ANSWER_BYTES_MAX: usize = 1_000_000;

/// Why a call is refused. For whoever made it.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("a session's name is 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`")]
    Name,
    #[error("rows are 1 to {ROWS_MAX}, cols 1 to {COLS_MAX}")]
    Size,
    #[error("there is no session `{name}`; start it first")]
    Unknown { name: String },
    #[error("the session `{name}` is running already; stop it first, or use another name")]
    Running { name: String },
    #[error("there are {SESSIONS_MAX} sessions already; stop one first")]
    TooMany,
    #[error("the session `{name}` has ended: its program {end}; start it again")]
    Ended { name: String, end: Told },
    #[error("keys are missing")]
    NoKeys,
    #[error("keys are at most {} bytes", keys::KEYS_BYTES_MAX)]
    TooManyKeys,
    #[error("nothing can be typed to the program: {0}")]
    Closed(io::Error),
    #[error("the program could not be started: {0}")]
    NotStarted(String),
    #[error("the terminal cannot be resized: {0}")]
    NotResized(io::Error),
}

/// Why there is no outcome.
#[derive(Debug)]
pub(crate) enum Failed {
    Problem(Problem),
    /// The slot's init is gone.
    Init(InitError),
}

impl From<InitError> for Failed {
    fn from(error: InitError) -> Self {
        Self::Init(error)
    }
}

/// What came of an action.
enum Done {
    Answer(Answer),
    Refused(Refused),
    Cut(Cut, Answer, String),
}

impl From<Refused> for Done {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// All sessions of a slot. Dropped, their programs are hung up on.
#[derive(Debug)]
pub(crate) struct Terminals {
    sessions: BTreeMap<String, Session>,
    /// One of them at a time may take a processor for its output.
    heavy: Arc<Semaphore>,
}

impl Default for Terminals {
    fn default() -> Self {
        Self { sessions: BTreeMap::new(), heavy: Arc::new(Semaphore::new(1)) }
    }
}

impl Terminals {
    pub(crate) async fn call(
        &mut self,
        init: &mut InitProcess,
        args: &TerminalArgs,
        limits: CallLimits,
        network: Network,
        stop: &Stop,
    ) -> Result<Outcome, Failed> {
        let deadline = Instant::now() + Duration::from_millis(limits.timeout_ms);
        let bounds = Bounds { deadline, stop: stop.token().clone() };
        let name = args.session.as_deref().unwrap_or(NAME_DEFAULT);
        let done = match (args.action, is_name(name)) {
            (TerminalAction::List, _) => Done::Answer(Answer::of_all(&self.sessions)),
            (_, false) => Refused::Name.into(),
            (TerminalAction::Start, true) => self.start(init, name, args, network, &bounds).await?,
            (TerminalAction::Stop, true) => self.stop(init, name, args).await?,
            (_, true) => match self.sessions.get(name) {
                None => Refused::Unknown { name: name.to_owned() }.into(),
                Some(session) => Asked { session, name, args, bounds: &bounds }.answer().await,
            },
        };
        Ok(match done {
            Done::Answer(answer) => answer.done(network),
            Done::Refused(refused) => Answer::default().ended(
                Ended::Exited,
                CausedBy::Policy,
                refused.to_string(),
                network,
            ),
            Done::Cut(Cut::TimeOver, answer, error) => {
                answer.with("timeout", true).ended(Ended::Timeout, CausedBy::Policy, error, network)
            }
            Done::Cut(Cut::Cancelled, answer, error) => {
                answer.ended(Ended::Cancelled, stop.by(), error, network)
            }
        })
    }

    async fn start(
        &mut self,
        init: &mut InitProcess,
        name: &str,
        args: &TerminalArgs,
        network: Network,
        bounds: &Bounds,
    ) -> Result<Done, Failed> {
        let Some(size) = size_of(args) else { return Ok(Refused::Size.into()) };
        let has_ended = |it: &Session| it.state().end.is_some();
        match self.sessions.get(name).map(has_ended) {
            Some(false) => return Ok(Refused::Running { name: name.to_owned() }.into()),
            Some(true) => drop(self.sessions.remove(name)),
            None if self.sessions.len() >= SESSIONS_MAX => return Ok(Refused::TooMany.into()),
            None => {}
        }
        let start = Start { command: args.command.clone(), size, network };
        let started = Session::start(init, start, Arc::clone(&self.heavy)).await;
        let session = match started {
            Ok(session) => session,
            Err(SpawnError::Init(error)) => return Err(error.into()),
            Err(SpawnError::NoShell) => {
                let text =
                    "there is neither bash nor sh in the container; install bash in its image";
                return Err(Failed::Problem(Problem::new(Code::NoShell, text)));
            }
            Err(error) => return Ok(Refused::NotStarted(crate::chain(&error)).into()),
        };
        let session = self.sessions.entry(name.to_owned()).or_insert(session);
        let asked = Asked { session, name, args, bounds };
        let waited = match (&args.command, asked.wanted_wait()) {
            (_, Some(wait)) => session.wait(wait, bounds).await,
            (None, None) => session.greet(bounds).await,
            (Some(_), None) => Ok(()),
        };
        let answer = asked.screen();
        Ok(match waited {
            Ok(()) => Done::Answer(answer),
            Err(cut) => asked.cut(cut, answer),
        })
    }

    async fn stop(
        &mut self,
        init: &mut InitProcess,
        name: &str,
        args: &TerminalArgs,
    ) -> Result<Done, Failed> {
        let Some(session) = self.sessions.remove(name) else {
            return Ok(Refused::Unknown { name: name.to_owned() }.into());
        };
        session.stop(init).await?;
        let state = session.state();
        let shown = state.screen.visible(bytes_max(args));
        let answer = Answer::of(name, &state);
        Ok(Done::Answer(Answer { text: shown.text, ..answer }))
    }
}

/// A call to a session that is there.
struct Asked<'a> {
    session: &'a Session,
    name: &'a str,
    args: &'a TerminalArgs,
    bounds: &'a Bounds,
}

impl Asked<'_> {
    async fn answer(&self) -> Done {
        match self.args.action {
            TerminalAction::SendKeys => self.send_keys().await,
            TerminalAction::Wait => {
                let from = self.session.state().log.end();
                self.wait_since(from, self.wait(true)).await
            }
            TerminalAction::Capture => Done::Answer(self.screen()),
            TerminalAction::Read => {
                let mut state = self.session.state();
                let offset = self.args.offset.unwrap_or(state.read_offset);
                let part = state.log.read(offset, bytes_max(self.args), state.end.is_some());
                state.read_offset = part.next_offset;
                Done::Answer(Answer::of(self.name, &state).with_part(part))
            }
            TerminalAction::Cast => {
                let mut state = self.session.state();
                let offset = self.args.offset.unwrap_or(state.cast_offset);
                let part = state.cast.read(offset, bytes_max(self.args));
                state.cast_offset = part.next_offset;
                Done::Answer(Answer::of(self.name, &state).with_part(part))
            }
            TerminalAction::Resize => self.resize(),
            // Have no session yet, or no need of one.
            TerminalAction::Start | TerminalAction::Stop | TerminalAction::List => {
                Done::Answer(self.screen())
            }
        }
    }

    async fn send_keys(&self) -> Done {
        let Some(keys) = &self.args.keys else { return Refused::NoKeys.into() };
        let (from, encoded) = {
            let state = self.session.state();
            if let Some(end) = state.end {
                return Refused::Ended { name: self.name.to_owned(), end: Told(end) }.into();
            }
            let application = state.screen.is_application_cursor();
            (state.log.end(), keys::encode(keys.as_slice(), self.args.literal, application))
        };
        let Some(bytes) = encoded else { return Refused::TooManyKeys.into() };
        match self.session.type_in(&bytes, self.bounds).await {
            Ok(()) => {}
            Err(TypeError::Closed(error)) => return Refused::Closed(error).into(),
            Err(TypeError::Cut { cut, typed }) => {
                let answer = self.since(from).with("typed_bytes", typed);
                let all = bytes.len();
                let why = format!("{typed} of {all} bytes were typed: the program does not read");
                return Done::Cut(cut, answer, format!("{}; {why}", self.cut_text(cut)));
            }
        }
        match self.wanted_wait() {
            Some(wait) => self.wait_since(from, wait).await,
            None => Done::Answer(self.since(from)),
        }
    }

    /// If the call asks for one.
    fn wanted_wait(&self) -> Option<Wait> {
        (self.args.wait || self.args.min_wait_ms.is_some()).then(|| self.wait(self.args.wait))
    }

    fn wait(&self, until_done: bool) -> Wait {
        Wait {
            min: Duration::from_millis(self.args.min_wait_ms.unwrap_or(0)),
            max: self.args.max_wait_ms.map(Duration::from_millis),
            until_done,
        }
    }

    async fn wait_since(&self, from: u64, wait: Wait) -> Done {
        match self.session.wait(wait, self.bounds).await {
            Ok(()) => Done::Answer(self.since(from)),
            Err(cut) => self.cut(cut, self.since(from)),
        }
    }

    fn resize(&self) -> Done {
        let Some(size) = size_of(self.args) else { return Refused::Size.into() };
        if let Some(end) = self.session.state().end {
            return Refused::Ended { name: self.name.to_owned(), end: Told(end) }.into();
        }
        match self.session.resize(size) {
            Ok(()) => Done::Answer(Answer::of(self.name, &self.session.state())),
            Err(error) => Refused::NotResized(error).into(),
        }
    }

    /// What was printed since then.
    fn since(&self, from: u64) -> Answer {
        let state = self.session.state();
        let part = state.log.read(from, bytes_max(self.args), state.end.is_some());
        Answer::of(self.name, &state).with_part(part)
    }

    fn screen(&self) -> Answer {
        let state = self.session.state();
        let max = bytes_max(self.args);
        let shown =
            if self.args.entire { state.screen.entire(max) } else { state.screen.visible(max) };
        let mut answer = Answer::of(self.name, &state);
        answer.text = shown.text;
        answer.with("lines_cut", shown.lines_cut).with("truncated", shown.lines_cut > 0)
    }

    fn cut(&self, cut: Cut, answer: Answer) -> Done {
        Done::Cut(cut, answer, self.cut_text(cut))
    }

    fn cut_text(&self, cut: Cut) -> String {
        let what = match cut {
            Cut::TimeOver => "the call's time is over",
            Cut::Cancelled => "the call was cancelled",
        };
        format!("{what}; the session `{}` goes on", self.name)
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn size_of(args: &TerminalArgs) -> Option<Size> {
    Size::new(args.rows.unwrap_or(ROWS_DEFAULT), args.cols.unwrap_or(COLS_DEFAULT))
}

fn bytes_max(args: &TerminalArgs) -> usize {
    let asked = args.max_bytes.and_then(|it| usize::try_from(it).ok());
    asked.unwrap_or(ANSWER_BYTES_DEFAULT).min(ANSWER_BYTES_MAX)
}
