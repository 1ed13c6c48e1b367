//! The persistent shell of a slot: one bash that runs one command after another.
//!
//! It reads its script from a pipe, as `bash -s` does, so that it recovers from an error in a
//! command as it does in any script. For each command the script has two lines: one that evaluates
//! the command, which is in a file of memory, and one that tells its status. While a command runs,
//! bash itself hides the three descriptors of ours: standard input is /dev/null, the others are
//! closed, and what bash keeps aside is not inherited by what it executes. A status counts only
//! with the number of its call, which nobody can know before it is asked for.
//!
//! Invariant: what a command does to its shell ends, at worst, that shell. What it makes the shell
//! say is about its own calls.

use super::{
    command::{Launch, Leads, Walls, output_pipe},
    running::{Pipe, new_capture},
};
use crate::{
    isolate::sys::Reaped,
    wire::{Captured, End},
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{MemfdFlags, SeekFrom},
    io::Errno,
};
use slotmux_protocol::{CallLimits, Network};
use std::{ffi::CStr, io};

/// Where the shell has its descriptors: out of the way of scripts, which number theirs from 3 on.
const STATUS: i32 = 58;
const COMMAND: i32 = 59;
/// Ours are above, so that none is written over while they are handed over.
const HANDED: i32 = 100;
/// A status takes a hundred bytes; what else comes is not from our line.
const TOLD_BYTES_MAX: usize = 4_096;

/// Tracing (`set -x`) is off between commands, and each gets it back with its first line. The
/// status that a command finds in `$?` is that of the one before it.
const PRELUDE: &str = r#"__slot_status=0 __slot_x=
__slot_get() { IFS= \builtin read -r -d '' -u 59 __slot_command; \builtin return "$__slot_status"; }
__slot_put() {
__slot_status=$2
case $- in (*x*) __slot_x='set -x;'; \builtin set +x;; (*) __slot_x=;; esac
{ \builtin times; \builtin printf '%s %s\n' "$1" "$2"; } >&58 || \builtin exit "$2"
}
shopt -s expand_aliases
"#;
/// In both branches the same: a condition is how `$?` is set without tripping `set -e`. An empty
/// line has to follow: an error at the end of a command leaves bash's parser in the middle of one.
const EVALUATE: &str = r#"if __slot_get; then \builtin eval "$__slot_x$__slot_command" </dev/null 58>&- 59<&-; else \builtin eval "$__slot_x$__slot_command" </dev/null 58>&- 59<&-; fi
"#;

pub(super) struct Kept {
    pub(super) pid: i32,
    pub(super) network: Network,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
    /// Absent when the shell is not to be spoken to any more.
    script: Option<OwnedFd>,
    command: OwnedFd,
    pub(super) status: Option<OwnedFd>,
    told: Vec<u8>,
    used: Times,
    /// As `waitpid` has it; the next command needs another shell.
    pub(super) ended: Option<i32>,
}

/// Of the shell and all its ended children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) user_us: u64,
    pub(super) system_us: u64,
}

/// What a running command's status will be known by.
pub(super) struct Awaited {
    nonce: String,
    pub(super) before: Times,
    /// The status came: the shell is there for the next.
    pub(super) came_back: bool,
}

impl Kept {
    pub(super) fn start(
        walls: &mut Walls,
        network: Network,
        limits: &CallLimits,
    ) -> Result<Self, End> {
        let kernel = |error: Errno| End::NotStarted(error.raw_os_error());
        let (script_end, script) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(kernel)?;
        rustix::fs::fcntl_setfl(&script, rustix::fs::OFlags::NONBLOCK).map_err(kernel)?;
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let (status, status_end) = output_pipe()?;
        let command = rustix::fs::memfd_create(c"command", MemfdFlags::CLOEXEC).map_err(kernel)?;
        let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, HANDED).map_err(kernel);
        let (status_end, command_end) = (above(&status_end)?, above(&command)?);
        let pid = walls.start(&Launch {
            argv: &[c"--noprofile", c"--norc", c"-s"],
            env: &[],
            cwd: None,
            network,
            stdin: Some(script_end.as_fd()),
            stdout: stdout_end.as_fd(),
            stderr: stderr_end.as_fd(),
            more: &[(status_end.as_raw_fd(), STATUS), (command_end.as_raw_fd(), COMMAND)],
            leads: Leads::Session,
            cpu_ms_max: 0,
        })?;
        rustix::io::write(&script, PRELUDE.as_bytes()).map_err(kernel)?;
        Ok(Self {
            pid,
            network,
            stdout: Pipe::new(stdout, limits),
            stderr: Pipe::new(stderr, limits),
            script: Some(script),
            command,
            status: Some(status),
            told: Vec::new(),
            used: Times::default(),
            ended: None,
        })
    }

    /// Has it run a command. `Err`: it is no longer to be spoken to.
    pub(super) fn give(&mut self, command: &CStr) -> io::Result<Awaited> {
        let mut nonce = [0; 8];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
        let nonce = format!("{:016x}", u64::from_ne_bytes(nonce));
        rustix::fs::ftruncate(&self.command, 0)?;
        let mut rest = command.to_bytes_with_nul();
        let mut at = 0;
        while !rest.is_empty() {
            let written = rustix::io::pwrite(&self.command, rest, at)?;
            at += written as u64;
            rest = &rest[written..];
        }
        rustix::fs::seek(&self.command, SeekFrom::Start(0))?;
        // Both lines fit what a pipe takes at once.
        let lines = format!("{EVALUATE}\n{{ __slot_put {nonce} $?; }} 2>/dev/null\n");
        let script = self.script.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        if rustix::io::write(script, lines.as_bytes())? != lines.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(Awaited { nonce, before: self.used, came_back: false })
    }

    /// What the status pipe has; sets `came_back` when it is that of the command.
    pub(super) fn listen(&mut self, awaited: Option<&mut Awaited>) -> Option<Reaped> {
        let mut bytes = [0; TOLD_BYTES_MAX];
        let read = rustix::io::read(self.status.as_ref()?, &mut bytes);
        match read {
            Ok(0) => {
                self.status = None;
                // It has ended, or is about to become another program, or has lost what it would say
                // it by. In all cases its end says how the command ended, and it is not to wait
                // for another.
                self.script = None;
                return None;
            }
            Ok(read) => self.told.extend_from_slice(&bytes[..read]),
            Err(_again) => return None,
        }
        let Some(awaited) = awaited else {
            // Nobody asked.
            self.told.clear();
            return None;
        };
        let status = self.status_of(&awaited.nonce);
        if status.is_none() {
            let over = self.told.len().saturating_sub(TOLD_BYTES_MAX);
            self.told.drain(..over);
        }
        let code = status?;
        awaited.came_back = true;
        self.told.clear();
        Some(Reaped::exited(self.pid, code, self.used.user_us, self.used.system_us))
    }

    fn status_of(&mut self, nonce: &str) -> Option<u8> {
        let text = str::from_utf8(&self.told).unwrap_or_default();
        let (before, after) = text.split_once(&format!("{nonce} "))?;
        let (code, _) = after.split_once('\n')?;
        let code = code.parse().ok()?;
        if let Some(times) = read_times(before) {
            self.used = times;
        }
        Some(code)
    }

    /// What it printed since the last command, to stand at the head of what the next one prints.
    pub(super) fn take_printed(&mut self, limits: &CallLimits) -> (Vec<u8>, Vec<u8>) {
        let mut printed = [&mut self.stdout, &mut self.stderr].map(|stream| {
            let capture = std::mem::replace(&mut stream.capture, new_capture(limits));
            joined(capture.finish())
        });
        if let Some(status) = self.ended {
            let how = if libc::WIFSIGNALED(status) {
                format!("signal {}", libc::WTERMSIG(status))
            } else {
                format!("exit code {}", libc::WEXITSTATUS(status))
            };
            let note = format!("the shell ended after the last call ({how}); this one is new\n");
            printed[1].extend_from_slice(note.as_bytes());
        }
        let [stdout, stderr] = printed;
        (stdout, stderr)
    }
}

fn joined(captured: Captured) -> Vec<u8> {
    let cut = captured.cut_bytes();
    let mut bytes = captured.head;
    if cut > 0 {
        bytes.extend_from_slice(format!("\n... ({cut} bytes cut) ...\n").as_bytes());
    }
    bytes.extend_from_slice(&captured.tail);
    bytes
}

/// The last two lines, as `times` prints them: of the shell, and of its children.
fn read_times(text: &str) -> Option<Times> {
    let mut lines = text.trim_end().rsplit('\n');
    let mut times = Times::default();
    for line in [lines.next()?, lines.next()?] {
        let (user, system) = line.split_once(' ')?;
        times.user_us += time_us(user)?;
        times.system_us += time_us(system)?;
    }
    Some(times)
}

/// `1m2.345s`; the point is a comma in some languages.
fn time_us(text: &str) -> Option<u64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    let (seconds, millis) = seconds.split_once(['.', ','])?;
    let [minutes, seconds, millis] =
        [minutes, seconds, millis].map(|it| it.parse::<u32>().ok().map(u64::from));
    Some((minutes? * 60_000 + seconds? * 1_000 + millis?) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_any_language() {
        let text = "0m0,001s 0m0,002s\n1m2.003s 0m0.000s\n";
        let times = Times { user_us: 62_004_000, system_us: 2_000 };
        assert_eq!(read_times(text), Some(times));
        for nonsense in ["", "\n", "0m0.001s 0m0.002s", "a\nb", "0m0.001s\n0m0.002s"] {
            assert_eq!(read_times(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn what_is_carried_over_says_what_is_missing() {
        let whole = Captured { head: b"ab".to_vec(), tail: b"yz".to_vec(), bytes: 4 };
        assert_eq!(joined(whole.clone()), b"abyz");
        assert_eq!(joined(Captured { bytes: 26, ..whole }), b"ab\n... (22 bytes cut) ...\nyz");
    }
}
