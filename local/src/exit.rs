//! How a sandbox-server ended, in words.

use rustix::process::WaitIdStatus;
use slotmux_backend::{Exit, ExitKind, last_lines};
use std::fmt::Write;

/// `status` is absent when it was somebody else's child. `log` is the end of what it printed.
pub(crate) fn of_unasked(status: Option<WaitIdStatus>, log: &str) -> Exit {
    let kind = match &status {
        None => ExitKind::Vanished,
        Some(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitKind::Code(code),
            (None, Some(signal)) => ExitKind::Signal(signal),
            (None, None) => ExitKind::Vanished,
        },
    };
    let mut reason = match kind {
        ExitKind::Code(0) => "sandbox-server ended by itself".to_owned(),
        ExitKind::Code(code) => format!("sandbox-server failed with exit code {code}"),
        ExitKind::Signal(signal) => {
            format!("sandbox-server was killed by signal {signal}{}", name(signal))
        }
        ExitKind::Stopped | ExitKind::OutOfMemory | ExitKind::Vanished => {
            "sandbox-server is gone; it was started by an earlier pool, so its exit code is unknown"
                .to_owned()
        }
    };
    let words = last_lines(log);
    if kind != ExitKind::Code(0) && !words.is_empty() {
        // Writing to a string never fails.
        let _ = write!(reason, "; it last said: {words}");
    }
    Exit { kind, reason }
}

pub(crate) fn of_asked() -> Exit {
    Exit { kind: ExitKind::Stopped, reason: "sandbox-server was stopped".to_owned() }
}

fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_end_is_no_success() {
        let exit = of_unasked(None, "panicked: no slots");
        assert_eq!(exit.kind, ExitKind::Vanished);
        assert!(exit.reason.ends_with("it last said: panicked: no slots"), "{}", exit.reason);
    }
}
