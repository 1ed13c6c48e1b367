//! What is said when a command cannot do its work: an error, and what to do about it.

use std::{error::Error, fmt, process::ExitCode};

/// The command ran and the answer is no.
pub(crate) const FAILED: u8 = 1;
/// The command was used wrongly, or its input is malformed; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// `exec`: the command in the slot ran out of time.
pub(crate) const TIMED_OUT: u8 = 124;
/// `exec`: our own fault, as opposed to that of the command in the slot.
pub(crate) const OURS: u8 = 125;
/// Ended by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    hint: Option<String>,
    exit: u8,
}

impl Fault {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: FAILED }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: USAGE }
    }

    /// `doing`, then why it failed.
    pub(crate) fn because(doing: impl fmt::Display, error: &dyn Error) -> Self {
        Self::failed(format!("{doing}: {}", Chain(error)))
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Prints it to stderr.
    pub(crate) fn report(&self) -> ExitCode {
        crate::out::complain(format_args!("{self}"));
        ExitCode::from(self.exit)
    }
}

impl Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// `outer: middle: root`, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
