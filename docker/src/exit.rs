//! How a container ended, in words.

use crate::engine::Ended;
use slotmux_backend::{Exit, ExitKind, last_lines};
use std::fmt::Write;

const SIGNAL_KILL: i32 = 9;
/// What a shell and an engine say of a process that a signal has ended.
const SIGNALS_FROM: i64 = 128;
const SIGNAL_MAX: i64 = 64;

/// `ended` is what the engine knows of it; `log` is the end of what it printed.
pub(crate) fn of_unasked(ended: Option<&Ended>, log: &str) -> Exit {
    let kind = ended.map_or(ExitKind::Vanished, kind);
    let mut reason = match kind {
        ExitKind::Code(0) => "container ended by itself".to_owned(),
        ExitKind::Code(code) => format!("container failed with exit code {code}"),
        ExitKind::Signal(signal) => format!("container was killed by signal {signal}"),
        ExitKind::OutOfMemory => "container ran out of memory and was killed".to_owned(),
        ExitKind::Stopped | ExitKind::Vanished => {
            "container is gone, and the engine does not know any more how it ended".to_owned()
        }
    };
    // Writing to a string never fails.
    if let Some(error) = ended.map(|it| it.error.trim()).filter(|it| !it.is_empty()) {
        let _ = write!(reason, "; the engine said: {error}");
    }
    let words = last_lines(log);
    if kind != ExitKind::Code(0) && !words.is_empty() {
        let _ = write!(reason, "; it last said: {words}");
    }
    Exit { kind, reason }
}

/// Killed, in a container that has a memory limit, and by nobody whom the engine knows. An engine does
/// not hear of every lack of memory: where the container is gone as soon, the news is lost.
pub(crate) fn presumed_out_of_memory(log: &str) -> Exit {
    let mut reason =
        "container was killed by signal 9, most likely for memory: it has a limit, and \
                      nobody asked the engine to kill it"
            .to_owned();
    let words = last_lines(log);
    if !words.is_empty() {
        // Writing to a string never fails.
        let _ = write!(reason, "; it last said: {words}");
    }
    Exit { kind: ExitKind::OutOfMemory, reason }
}

/// Whether that is what it looks like, unless somebody asked for it.
pub(crate) fn may_be_memory(ended: &Ended) -> bool {
    kind(ended) == ExitKind::Signal(SIGNAL_KILL)
}

pub(crate) fn of_asked() -> Exit {
    Exit { kind: ExitKind::Stopped, reason: "container was stopped".to_owned() }
}

fn kind(ended: &Ended) -> ExitKind {
    let signal = ended.code - SIGNALS_FROM;
    let signal = i32::try_from(signal).ok().filter(|_| (1..=SIGNAL_MAX).contains(&signal));
    match signal {
        // Engines set the flag when any process in there was killed for memory: the server itself
        // must have been killed too.
        Some(SIGNAL_KILL) if ended.out_of_memory => ExitKind::OutOfMemory,
        Some(signal) => ExitKind::Signal(signal),
        None => ExitKind::Code(i32::try_from(ended.code).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i64, out_of_memory: bool) -> Ended {
        Ended { code, out_of_memory, error: String::new() }
    }

    #[test]
    fn out_of_memory_is_told_from_a_kill_and_from_a_failure() {
        for (ended, kind) in [
            (ended(0, false), ExitKind::Code(0)),
            (ended(3, false), ExitKind::Code(3)),
            (ended(3, true), ExitKind::Code(3)),
            (ended(137, false), ExitKind::Signal(9)),
            (ended(137, true), ExitKind::OutOfMemory),
            (ended(143, true), ExitKind::Signal(15)),
            (ended(128, false), ExitKind::Code(128)),
            (ended(255, false), ExitKind::Code(255)),
        ] {
            assert_eq!(of_unasked(Some(&ended), "").kind, kind, "{ended:?}");
        }
        assert_eq!(of_unasked(None, "").kind, ExitKind::Vanished);
    }
}
