//! What a call came to, before it is put into the words of one wire or the other.

mod limit;

use crate::{
    files::{FileError, Told},
    wire::{Captured, Done, End},
};
use limit::{Facts, merge_cpu};
use serde_json::{Map, Value, json};
use slotmux_protocol::{
    CallLimits, CausedBy, Ended, ExecutionId, Isolation, Network, ToolResult, Usage,
    atropos::SlotResult,
};
use std::fmt::Write as _;

/// Of each stream, on the atropos wire.
const ATROPOS_STREAM_CHARS_MAX: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) body: Body,
    pub(crate) data: Option<Value>,
    /// Empty when it went well.
    pub(crate) error: String,
    pub(crate) ended: Ended,
    pub(crate) caused_by: CausedBy,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) network: Network,
    pub(crate) usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Text(String),
    /// Text whose data are for the atropos wire as well, as its metadata.
    Screen(String),
    Streams {
        stdout: Captured,
        stderr: Captured,
    },
}

/// What the slot's cgroups saw while the command ran.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pressure {
    pub(crate) oom_kills: u64,
    /// Forks that were refused; absent where the kernel does not count them.
    pub(crate) pids_hits: Option<u64>,
    /// All processor time; absent where it is not counted.
    pub(crate) cpu_us: Option<u64>,
    /// About how it was divided.
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) memory_peak_bytes: Option<u64>,
}

impl Outcome {
    pub(crate) fn of_command(
        done: Done,
        pressure: Pressure,
        limits: &CallLimits,
        cancelled_by: CausedBy,
        network: Network,
    ) -> Self {
        let mut outcome = Self {
            usage: Usage {
                wall_us: done.wall_us,
                user_us: done.user_us,
                system_us: done.system_us,
                max_rss_bytes: done.max_rss_bytes.max(done.seen.max_rss_bytes),
                memory_peak_bytes: pressure.memory_peak_bytes.or(done.seen.memory_bytes),
                stdout_bytes: done.stdout.bytes,
                stderr_bytes: done.stderr.bytes,
                cut_bytes: done.stdout.cut_bytes() + done.stderr.cut_bytes(),
            },
            body: Body::Streams { stdout: done.stdout, stderr: done.stderr },
            data: None,
            error: String::new(),
            ended: Ended::Exited,
            caused_by: CausedBy::Policy,
            exit_code: None,
            signal: None,
            network,
        };
        let (ended, error) = match done.end {
            End::Exited(code) => {
                outcome.exit_code = Some(code);
                (
                    Ended::Exited,
                    if code == 0 { String::new() } else { format!("Exit code: {code}") },
                )
            }
            End::Signaled(signal) => {
                outcome.signal = Some(signal);
                (Ended::Signaled, format!("Killed by signal {signal}"))
            }
            End::Cancelled => {
                outcome.caused_by = cancelled_by;
                (Ended::Cancelled, "Command was cancelled".to_owned())
            }
            // Named below.
            End::Timeout
            | End::CpuTime
            | End::Oom
            | End::Processes
            | End::Disk
            | End::OutputLimit
            | End::NotStarted(libc::ENOMEM | libc::EAGAIN) => (Ended::Exited, String::new()),
            End::NotStarted(libc::E2BIG) => {
                outcome.exit_code = Some(126);
                (Ended::Exited, "Command too long for the system".to_owned())
            }
            End::NotStarted(libc::EINVAL) => {
                outcome.exit_code = Some(126);
                (Ended::Exited, "Command has a NUL byte".to_owned())
            }
            End::NotStarted(errno) => {
                outcome.caused_by = CausedBy::Infra;
                let reason = std::io::Error::from_raw_os_error(errno);
                (Ended::Lost, format!("Command could not be started: {reason}"))
            }
            End::NoDirectory(errno) => {
                outcome.exit_code = Some(126);
                let reason = std::io::Error::from_raw_os_error(errno);
                (Ended::Exited, format!("Command cannot begin in its directory: {reason}"))
            }
            End::NoExec(errno) => {
                outcome.exit_code = Some(if errno == libc::ENOENT { 127 } else { 126 });
                let reason = std::io::Error::from_raw_os_error(errno);
                (Ended::Exited, format!("The slot's shell cannot be run: {reason}"))
            }
            // The caller turns these into problems before they come here.
            End::NoShell | End::NoBash | End::HasNetwork => {
                (Ended::Lost, "There is no shell for it".to_owned())
            }
        };
        outcome.ended = ended;
        outcome.error = error;
        merge_cpu(&mut outcome.usage, &done.seen, &pressure);
        let facts = Facts {
            end: done.end,
            seen: done.seen,
            processes_full: done.processes_full,
            pressure,
            cpu_us: outcome.usage.user_us.saturating_add(outcome.usage.system_us),
        };
        outcome.attribute(&facts, limits);
        outcome
    }

    pub(crate) fn of_file(
        result: Result<Told, FileError>,
        timeout_ms: u64,
        cancelled_by: CausedBy,
        network: Network,
    ) -> Self {
        let (told, error, code) = match result {
            Ok(told) => (told, String::new(), 0),
            Err(FileError::TimedOut) => {
                let error = timed_out(timeout_ms);
                return Self::cut_short(Ended::Timeout, CausedBy::Policy, &error, network);
            }
            Err(FileError::Cancelled) => {
                let error = FileError::Cancelled.to_string();
                return Self::cut_short(Ended::Cancelled, cancelled_by, &error, network);
            }
            Err(error) if error.is_ours() => {
                let error = format!("The server failed: {error}");
                return Self::cut_short(Ended::Lost, CausedBy::Infra, &error, network);
            }
            Err(error) => {
                let data = Some(json!({ "reason": error.reason() }));
                (Told { text: String::new(), data }, error.to_string(), 1)
            }
        };
        Self {
            body: Body::Text(told.text),
            data: told.data,
            error,
            ended: Ended::Exited,
            caused_by: CausedBy::Policy,
            exit_code: Some(code),
            signal: None,
            network,
            usage: Usage::default(),
        }
    }

    /// It did not come to an end of its own.
    pub(crate) fn cut_short(ended: Ended, by: CausedBy, error: &str, network: Network) -> Self {
        Self {
            // So that the atropos wire says how it ended, too.
            body: Body::Streams { stdout: Captured::default(), stderr: Captured::default() },
            data: None,
            error: error.to_owned(),
            ended,
            caused_by: by,
            exit_code: None,
            signal: None,
            network,
            usage: Usage::default(),
        }
    }

    /// The kernel took the slot's init for it: there is nobody to say more.
    pub(crate) fn out_of_memory(network: Network) -> Self {
        Self::cut_short(Ended::Oom, CausedBy::Policy, OOM, network)
    }

    pub(crate) fn success(&self) -> bool {
        self.ended == Ended::Exited && self.exit_code == Some(0)
    }

    /// For keeping: about what it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let body = match &self.body {
            Body::Text(text) | Body::Screen(text) => text.len(),
            Body::Streams { stdout, stderr } => {
                stdout.head.len() + stdout.tail.len() + stderr.head.len() + stderr.tail.len()
            }
        };
        let data = self.data.as_ref().map_or(0, weight);
        size_of::<Self>() + body + data + self.error.len()
    }

    pub(crate) fn to_result(&self, execution_id: ExecutionId, isolation: Isolation) -> ToolResult {
        let output = match &self.body {
            Body::Text(text) | Body::Screen(text) => text.clone(),
            Body::Streams { stdout, stderr } => join_streams(both_ends(stdout), &both_ends(stderr)),
        };
        ToolResult {
            execution_id,
            success: self.success(),
            output,
            data: self.data.clone(),
            error: self.error.clone(),
            ended: self.ended,
            caused_by: self.caused_by,
            exit_code: self.exit_code,
            signal: self.signal,
            isolation,
            network: self.network,
            usage: self.usage,
        }
    }

    pub(crate) fn to_atropos(
        &self,
        execution_id: Option<String>,
        isolation: Isolation,
    ) -> SlotResult {
        let (output, metadata) = match &self.body {
            Body::Text(text) => (text.clone(), Map::new()),
            Body::Screen(text) => {
                let data = self.data.as_ref().and_then(Value::as_object);
                (text.clone(), data.cloned().unwrap_or_default())
            }
            Body::Streams { stdout, stderr } => {
                let stdout = head_only(stdout);
                let joined = join_streams(stdout, &head_only(stderr));
                (joined.trim().to_owned(), self.atropos_metadata(isolation))
            }
        };
        SlotResult {
            success: self.success(),
            output,
            error: self.error.clone(),
            execution_id,
            metadata,
        }
    }

    fn atropos_metadata(&self, isolation: Isolation) -> Map<String, Value> {
        let mut metadata = Map::new();
        // A signal's exit code as Python's subprocess has it.
        let code = self.exit_code.or(self.signal.map(|it| -it)).unwrap_or(-1);
        metadata.insert("exit_code".to_owned(), code.into());
        if self.ended == Ended::Timeout {
            metadata.insert("timeout".to_owned(), true.into());
        }
        metadata.insert("sandboxed".to_owned(), (isolation != Isolation::None).into());
        metadata.insert("network_isolated".to_owned(), (self.network == Network::Off).into());
        metadata.insert("ended".to_owned(), json!(self.ended));
        metadata.insert("caused_by".to_owned(), json!(self.caused_by));
        if let Some(limit) = self.data.as_ref().and_then(|it| it.get("limit")) {
            metadata.insert("limit".to_owned(), limit.clone());
        }
        metadata
    }
}

const OOM: &str = "Out of memory: the slot's memory limit was reached";
const PIDS: &str = "Too many processes: the slot's process limit was reached";

/// `30` seconds are written without a fraction, `1.5` with one: as Python prints what came in.
fn timed_out(timeout_ms: u64) -> String {
    let seconds = seconds(timeout_ms);
    let fraction = if seconds.contains('.') { "" } else { ".0" };
    format!("Command timed out after {seconds}{fraction}s")
}

/// `30`, or `1.5`.
fn seconds(ms: u64) -> String {
    let (whole, rest) = (ms / 1_000, ms % 1_000);
    match format!("{rest:03}").trim_end_matches('0') {
        "" => whole.to_string(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// About what a value takes in memory.
fn weight(value: &Value) -> usize {
    let own = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, it)| name.len() + weight(it)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + own
}

fn join_streams(mut stdout: String, stderr: &str) -> String {
    if stderr.is_empty() {
        return stdout;
    }
    if stdout.is_empty() {
        return stderr.to_owned();
    }
    stdout.push_str("\n[stderr]\n");
    stdout.push_str(stderr);
    stdout
}

fn both_ends(stream: &Captured) -> String {
    let mut text = String::from_utf8_lossy(&stream.head).into_owned();
    match stream.cut_bytes() {
        // The cut may lie within a character: joined as bytes.
        0 if !stream.tail.is_empty() => {
            String::from_utf8_lossy(&[&*stream.head, &*stream.tail].concat()).into_owned()
        }
        0 => text,
        cut => {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n... ({cut} bytes cut) ...\n");
            text.push_str(&String::from_utf8_lossy(&stream.tail));
            text
        }
    }
}

fn head_only(stream: &Captured) -> String {
    let mut text = String::from_utf8_lossy(&stream.head).into_owned();
    let end = text.char_indices().nth(ATROPOS_STREAM_CHARS_MAX).map(|(at, _)| at);
    if let Some(end) = end {
        text.truncate(end);
    }
    if end.is_some() || stream.bytes > stream.head.len() as u64 {
        text.push_str("\n... (output truncated)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(head: &[u8], tail: &[u8], bytes: u64) -> Captured {
        Captured { head: head.to_vec(), tail: tail.to_vec(), bytes }
    }

    #[test]
    fn both_ends_meet_without_a_mark_when_nothing_was_cut() {
        let split = "é".as_bytes();
        assert_eq!(both_ends(&captured(&split[..1], &split[1..], 2)), "é");
        assert_eq!(both_ends(&captured(b"ab", b"yz", 26)), "ab\n... (22 bytes cut) ...\nyz");
    }

    #[test]
    fn the_atropos_wire_counts_characters() {
        let text = "é".repeat(50_000);
        assert_eq!(head_only(&captured(text.as_bytes(), b"", 100_000)), text);
        let longer = format!("{text}x");
        let cut = head_only(&captured(longer.as_bytes(), b"", 100_001));
        assert_eq!(cut, format!("{text}\n... (output truncated)"));
    }

    #[test]
    fn a_timeout_is_written_as_it_was_asked_for() {
        assert_eq!(timed_out(30_000), "Command timed out after 30.0s");
        assert_eq!(timed_out(1_250), "Command timed out after 1.25s");
    }

    #[test]
    fn streams_are_joined_as_the_wire_says() {
        assert_eq!(join_streams("a".into(), "b"), "a\n[stderr]\nb");
        assert_eq!(join_streams("a\n".into(), "b"), "a\n\n[stderr]\nb");
        assert_eq!(join_streams(String::new(), "b"), "b");
        assert_eq!(join_streams("a".into(), ""), "a");
    }
}
