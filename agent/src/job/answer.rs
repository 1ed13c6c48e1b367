//! From what a job came to, to what is told.

use super::{
    core::{Conclusion, End, Mark},
    prepare::Kind,
    talk::Captures,
};
use crate::{
    GradedDone, JobDone, JobUsage, Output, PlainDone, Verdict, parameters::previous_state, result,
};
use slotmux_protocol::{CausedBy, Ended};

/// What a shell and an engine say of a process that a signal has ended.
const SIGNALS_FROM: i64 = 128;
const SIGNAL_MAX: i64 = 64;

pub(super) fn answer(
    kind: &Kind,
    conclusion: Conclusion,
    usage: JobUsage,
    captures: &Captures,
) -> JobDone {
    match kind {
        Kind::Graded(work) => {
            let previous = previous_state(&work.order.inputdata);
            JobDone::Graded(GradedDone { usage, ..graded(conclusion, previous) })
        }
        Kind::Plain(_) => {
            let (stdout, stderr) = (captures.stdout.output(), captures.stderr.output());
            JobDone::Plain(PlainDone { stdout, stderr, usage, ..plain(conclusion) })
        }
    }
}

pub(crate) fn graded(conclusion: Conclusion, previous: &str) -> GradedDone {
    let without = |verdict, text: &str, by| GradedDone::without_result(verdict, text, previous, by);
    match conclusion {
        Conclusion::Failed(failure) => without(Verdict::Crash, &failure.text, failure.caused_by),
        Conclusion::Marked(Mark::Killed) => without(Verdict::Killed, "", CausedBy::Client),
        Conclusion::Marked(Mark::Overflow) => without(Verdict::Overflow, "", CausedBy::Policy),
        Conclusion::Marked(Mark::Timeout) => without(Verdict::Timeout, "", CausedBy::Policy),
        Conclusion::Ended { result: Some(result), .. } => match result::read(result) {
            Ok(done) => done,
            Err(error) => without(Verdict::Crash, &error.to_string(), CausedBy::Policy),
        },
        Conclusion::Ended { unreadable: Some(why), .. } => {
            let text = result::BadResult::Protocol(why).to_string();
            without(Verdict::Crash, &text, CausedBy::Policy)
        }
        Conclusion::Ended { end, heard_all, .. } => {
            let is_ours = !heard_all || matches!(end, None | Some(End::Vanished));
            let by = if is_ours { CausedBy::Infra } else { CausedBy::Policy };
            without(Verdict::Crash, &result::BadResult::None.to_string(), by)
        }
    }
}

/// Outputs and usage are left empty.
pub(crate) fn plain(conclusion: Conclusion) -> PlainDone {
    let (ended, caused_by, exit_code, error) = match conclusion {
        Conclusion::Failed(failure) => (Ended::Lost, failure.caused_by, None, failure.text),
        Conclusion::Marked(Mark::Killed) => {
            (Ended::Cancelled, CausedBy::Client, None, "it was killed as asked".to_owned())
        }
        Conclusion::Marked(Mark::Overflow) => (Ended::Oom, CausedBy::Policy, None, memory()),
        Conclusion::Marked(Mark::Timeout) => {
            (Ended::Timeout, CausedBy::Policy, None, "its time was over".to_owned())
        }
        Conclusion::Ended { end: Some(End::Exited { code, out_of_memory }), heard_all, .. } => {
            let by = if heard_all { CausedBy::Policy } else { CausedBy::Infra };
            match code - SIGNALS_FROM {
                // A process in there may have been killed for memory, and the command gone on.
                _ if out_of_memory && code != 0 => (Ended::Oom, by, Some(code), memory()),
                _ if !heard_all => (Ended::Exited, by, Some(code), "output was lost".to_owned()),
                signal @ 1..=SIGNAL_MAX => {
                    (Ended::Signaled, by, Some(code), format!("signal {signal}"))
                }
                _ => (Ended::Exited, by, Some(code), String::new()),
            }
        }
        Conclusion::Ended { .. } => {
            (Ended::Lost, CausedBy::Infra, None, "its container is gone".to_owned())
        }
    };
    PlainDone {
        ended,
        caused_by,
        exit_code,
        error,
        stdout: Output::default(),
        stderr: Output::default(),
        usage: JobUsage::default(),
    }
}

fn memory() -> String {
    "it ran out of memory".to_owned()
}
