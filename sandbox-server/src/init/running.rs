//! The command that runs: its pipes, what they brought, and what is known of its end.

use super::{capture::Capture, kept::Awaited, no_children_left, now};
use crate::{
    isolate::sys,
    wire::{Captured, Done, End, Seen, Stream},
};
use rustix::fd::OwnedFd;
use slotmux_protocol::{CallLimits, Network};
use std::time::Duration;

/// What an unprivileged user may make of a pipe (`fs.pipe-max-size`).
pub(super) const PIPE_BYTES_MAX: u64 = 1 << 20;

pub(super) struct Running {
    pub(super) seq: u64,
    pub(super) pid: i32,
    pub(super) limits: CallLimits,
    pub(super) network: Network,
    pub(super) started: Duration,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
    /// What it prints is told while it runs.
    pub(super) streamed: bool,
    /// Set where the persistent shell runs it.
    pub(super) kept: Option<Awaited>,
    /// Why everything was killed, and since when.
    pub(super) killed: Option<(End, Duration)>,
    /// Something of a call that was killed was still there when it began.
    pub(super) disturbed: bool,
    pub(super) exited: Option<sys::Reaped>,
}

/// One stream of a command: its reading end, as long as anybody writes, and what it brought.
pub(super) struct Pipe {
    pub(super) pipe: Option<OwnedFd>,
    pub(super) capture: Capture,
}

impl Running {
    pub(super) fn deadline(&self) -> Duration {
        self.started + Duration::from_millis(self.limits.timeout_ms)
    }

    pub(super) fn stream(&mut self, stream: Stream) -> &mut Pipe {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(super) fn printed_bytes(&self) -> u64 {
        self.stdout.capture.bytes() + self.stderr.capture.bytes()
    }

    pub(super) fn into_done(self, processes_full: bool, seen: Seen) -> Done {
        let shell_ended = self.kept.as_ref().is_some_and(|it| !it.came_back);
        let end = match (self.killed, &self.exited) {
            (Some((why, _)), _) => why,
            (None, Some(reaped)) => end_of(reaped.status),
            (None, None) => End::Cancelled,
        };
        let usage = self.exited.as_ref().map(|it| &it.usage);
        let before = self.kept.as_ref().map(|it| it.before).unwrap_or_default();
        Done {
            seq: self.seq,
            end,
            stdout: self.stdout.capture.finish(),
            stderr: self.stderr.capture.finish(),
            wall_us: micros(now().saturating_sub(self.started)),
            user_us: usage.map_or(0, |it| time_us(it.ru_utime)).saturating_sub(before.user_us),
            system_us: usage.map_or(0, |it| time_us(it.ru_stime)).saturating_sub(before.system_us),
            max_rss_bytes: usage.map_or(0, |it| it.ru_maxrss.unsigned_abs() * 1_024),
            processes_full,
            disturbed: self.disturbed,
            seen,
            quiet: no_children_left(),
            shell_ended,
            network: self.network,
        }
    }
}

impl Done {
    pub(super) fn refused(seq: u64, end: End, network: Network) -> Self {
        Self {
            seq,
            end,
            stdout: Captured::default(),
            stderr: Captured::default(),
            wall_us: 0,
            user_us: 0,
            system_us: 0,
            max_rss_bytes: 0,
            processes_full: false,
            disturbed: false,
            seen: Seen::default(),
            quiet: false,
            shell_ended: false,
            network,
        }
    }
}

impl Pipe {
    pub(super) fn new(pipe: OwnedFd, limits: &CallLimits) -> Self {
        Self { pipe: Some(pipe), capture: new_capture(limits) }
    }

    /// The number of bytes that came; `None` when there is nothing to read now, or ever.
    pub(super) fn read_once(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            let pipe = self.pipe.as_ref()?;
            match rustix::io::read(pipe, &mut *buffer) {
                Ok(0) => self.pipe = None,
                Ok(bytes) => {
                    self.capture.push(&buffer[..bytes]);
                    return Some(bytes);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_again) => return None,
            }
        }
    }
}

pub(super) fn new_capture(limits: &CallLimits) -> Capture {
    Capture::new(limits.head_bytes_max as usize, limits.tail_bytes_max as usize)
}

fn end_of(status: i32) -> End {
    if libc::WIFSIGNALED(status) {
        End::Signaled(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    }
}

fn time_us(time: libc::timeval) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
