//! Data to stdout, all else to stderr.

use crate::fault::Fault;
use serde::Serialize;
use std::{
    fmt,
    io::{self, Write},
};

/// Prints data. A reader that went away has what it wanted.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    let printed = write!(stdout, "{text}").and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fault::because("write to stdout", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints one object, on a line of its own.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Fault> {
    let text =
        serde_json::to_string(value).map_err(|error| Fault::because("write JSON", &error))?;
    print(format_args!("{text}\n"))
}

pub(crate) fn complain(text: fmt::Arguments<'_>) {
    // There is nobody left to tell that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
