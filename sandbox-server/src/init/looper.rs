//! The one loop of a slot-init.

use super::{
    capture::Capture,
    command::{Started, Walls},
    tree,
};
use crate::{
    isolate::{Birth, sys},
    wire::{Captured, Done, End, FRAME_BYTES_MAX, FromInit, Run, ToInit},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd,
    net::{RecvFlags, SendFlags, recv, send},
};
use slotmux_protocol::{CallLimits, Decoder, Network, encode};
use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

/// How long a killed tree may take to be gone before the answer goes out without it.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How often killing is repeated, and memory is looked at where no cgroup does it.
const TICK: Duration = Duration::from_millis(50);
/// Pipes of finished commands that background processes still write to. Older ones are closed.
const ABANDONED_PIPES_MAX: usize = 64;
const READ_BYTES: usize = 64 << 10;
/// What an unprivileged user may make of a pipe (`fs.pipe-max-size`).
const PIPE_BYTES_MAX: u64 = 1 << 20;

/// Serves the server until its end of the socket is closed.
pub(super) fn serve(server: UnixStream, birth: &Birth, walls: Walls) -> io::Result<()> {
    let mut init = Looper {
        server,
        decoder: Decoder::new(FRAME_BYTES_MAX),
        children: sys::child_signals()?,
        running: None,
        abandoned: VecDeque::new(),
        buffer: vec![0; READ_BYTES],
        birth,
        walls,
    };
    let result = init.turn_until_closed();
    init.kill_until_gone();
    if no_children_left() { result } else { Err(io::ErrorKind::ResourceBusy.into()) }
}

struct Looper<'a> {
    server: UnixStream,
    decoder: Decoder,
    children: OwnedFd,
    running: Option<Running>,
    abandoned: VecDeque<OwnedFd>,
    buffer: Vec<u8>,
    birth: &'a Birth,
    walls: Walls,
}

struct Running {
    seq: u64,
    pid: i32,
    limits: CallLimits,
    started: Duration,
    stdout: Stream,
    stderr: Stream,
    /// Why everything was killed, and since when.
    killed: Option<(End, Duration)>,
    exited: Option<sys::Reaped>,
}

struct Stream {
    pipe: Option<OwnedFd>,
    capture: Capture,
}

/// What is ready, copied out of the poll so that nothing is borrowed.
#[expect(clippy::struct_excessive_bools, reason = "one for each descriptor")]
struct Ready {
    orders: bool,
    children: bool,
    stdout: bool,
    stderr: bool,
    abandoned: Vec<bool>,
}

impl Looper<'_> {
    fn turn_until_closed(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.stdout || ready.stderr {
                self.read_output(&ready);
            }
            self.drain_abandoned(&ready.abandoned);
            if ready.children {
                self.reap()?;
            }
            self.check_time_and_memory();
            self.finish_if_over()?;
            if ready.orders && !self.read_orders()? {
                return Ok(());
            }
        }
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let timeout = self.next_timeout().map(|it| Timespec {
            tv_sec: i64::try_from(it.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: it.subsec_nanos().into(),
        });
        let mut fds = vec![
            PollFd::new(&self.server, PollFlags::IN),
            PollFd::new(&self.children, PollFlags::IN),
        ];
        let (stdout, stderr) = match &self.running {
            Some(running) => (running.stdout.pipe.as_ref(), running.stderr.pipe.as_ref()),
            None => (None, None),
        };
        for pipe in [stdout, stderr].into_iter().flatten().chain(&self.abandoned) {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        Ok(Ready {
            orders: next(),
            children: next(),
            stdout: stdout.is_some() && next(),
            stderr: stderr.is_some() && next(),
            abandoned: ready.collect(),
        })
    }

    fn next_timeout(&self) -> Option<Duration> {
        match &self.running {
            Some(Running { killed: Some(_), .. }) => Some(TICK),
            _ if self.watches_memory() => Some(TICK),
            Some(running) => Some(running.deadline().saturating_sub(now())),
            None => None,
        }
    }

    /// `false`: the server has closed its end.
    fn read_orders(&mut self) -> io::Result<bool> {
        loop {
            match recv(&self.server, &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(false),
                Ok((bytes, _)) => self.decoder.push(&self.buffer[..bytes]),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while let Some(order) = self.decoder.next_message::<ToInit>().map_err(io::Error::other)? {
            match order {
                ToInit::Run(run) => self.run(*run)?,
                ToInit::Cancel => self.kill(End::Cancelled),
            }
        }
        Ok(true)
    }

    fn run(&mut self, run: Run) -> io::Result<()> {
        let limits = run.limits;
        let started = now();
        let network = run.network;
        let refused = match CString::new(run.args.command) {
            Ok(_) if !self.walls.has_shell() => End::NoShell,
            Err(_nul) => End::NotStarted(libc::EINVAL),
            Ok(command) => match self.start(&command, network) {
                Ok(process) => {
                    let capture = || {
                        Capture::new(limits.head_bytes_max as usize, limits.tail_bytes_max as usize)
                    };
                    self.running = Some(Running {
                        seq: run.seq,
                        pid: process.pid,
                        limits,
                        started,
                        stdout: Stream { pipe: Some(process.stdout), capture: capture() },
                        stderr: Stream { pipe: Some(process.stderr), capture: capture() },
                        killed: None,
                        exited: None,
                    });
                    return Ok(());
                }
                Err(error) => End::NotStarted(error.raw_os_error().unwrap_or(libc::EIO)),
            },
        };
        self.tell(Done::refused(run.seq, refused))
    }

    /// Pipes that background processes hold may take all descriptors there are: the oldest go.
    fn start(&mut self, command: &CStr, network: Network) -> io::Result<Started> {
        loop {
            match self.walls.start(command, network) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EMFILE)
                        && self.abandoned.pop_front().is_some() => {}
                other => return other,
            }
        }
    }

    fn read_output(&mut self, ready: &Ready) {
        let Some(running) = &mut self.running else { return };
        for (stream, is_ready) in
            [(&mut running.stdout, ready.stdout), (&mut running.stderr, ready.stderr)]
        {
            if is_ready {
                stream.read_once(&mut self.buffer);
            }
        }
        let max = running.limits.output_bytes_max;
        if max > 0 && running.printed_bytes() > max {
            self.kill(End::OutputLimit);
        }
    }

    /// Background processes must be able to go on printing after their call was answered.
    fn drain_abandoned(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        let buffer = &mut self.buffer;
        self.abandoned.retain(|pipe| match ready.next() {
            Some(true) => !matches!(rustix::io::read(pipe, &mut **buffer), Ok(0)),
            _ => true,
        });
    }

    fn reap(&mut self) -> io::Result<()> {
        // What was signalled is of no interest: every ended child is reaped below.
        let mut record = [0_u8; 128];
        while rustix::io::read(&self.children, &mut record).is_ok() {}
        loop {
            match sys::reap() {
                Ok(Some(reaped)) => self.note_exit(reaped),
                Ok(None) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn note_exit(&mut self, reaped: sys::Reaped) {
        if let Some(running) = &mut self.running
            && running.pid == reaped.pid
        {
            running.exited = Some(reaped);
        }
    }

    fn check_time_and_memory(&mut self) {
        if self.running.as_ref().is_some_and(|it| it.exited.is_none() && now() >= it.deadline()) {
            self.kill(End::Timeout);
        }
        let limit = self.birth.limits.memory_bytes_max;
        if self.watches_memory() && tree::memory_bytes(self.birth, limit) > limit {
            self.kill(End::Oom);
        }
    }

    /// Where no cgroup does it, and while there is anybody to watch.
    fn watches_memory(&self) -> bool {
        !self.birth.memory_cgroup && self.birth.limits.memory_bytes_max > 0 && !no_children_left()
    }

    /// Ends everything in the slot. The first reason stands.
    fn kill(&mut self, why: End) {
        if let Some(running) = &mut self.running {
            running.killed.get_or_insert((why, now()));
        }
        tree::kill(self.birth);
    }

    fn finish_if_over(&mut self) -> io::Result<()> {
        let Some(running) = &self.running else { return Ok(()) };
        match (&running.exited, running.killed) {
            (Some(_), None) => self.finish(),
            (_, Some((_, since))) if now() >= since + KILL_PATIENCE => self.finish(),
            (Some(_), Some(_)) if no_children_left() => self.finish(),
            (_, Some(_)) => {
                tree::kill(self.birth);
                self.reap()
            }
            (None, None) => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        for stream in [&mut running.stdout, &mut running.stderr] {
            // All that the command itself wrote is in the pipe. What a background process adds
            // meanwhile must not keep the answer, so no more is read than a pipe can hold.
            let until = stream.capture.bytes() + PIPE_BYTES_MAX;
            while stream.read_once(&mut self.buffer) && stream.capture.bytes() < until {}
            self.abandoned.extend(stream.pipe.take());
        }
        while self.abandoned.len() > ABANDONED_PIPES_MAX {
            self.abandoned.pop_front();
        }
        let full = self.is_full_of_processes(&running);
        self.tell(running.into_done(full))
    }

    fn is_full_of_processes(&self, running: &Running) -> bool {
        let failed = running.exited.as_ref().is_none_or(|it| it.status != 0);
        let max = self.birth.limits.processes_max as usize;
        // The command itself has left the count by now.
        failed && max > 0 && tree::processes(self.birth).len() + 2 >= max
    }

    fn tell(&mut self, done: Done) -> io::Result<()> {
        let mut frame = bytes::BytesMut::new();
        encode(&FromInit::Done(Box::new(done)), FRAME_BYTES_MAX, &mut frame)
            .map_err(io::Error::other)?;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match send(self.server.as_fd(), rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn kill_until_gone(&mut self) {
        let until = now() + KILL_PATIENCE;
        while !no_children_left() && now() < until {
            tree::kill(self.birth);
            let tick = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            let _ = poll(&mut [PollFd::new(&self.children, PollFlags::IN)], Some(&tick));
            let _ = self.reap();
        }
    }
}

impl Running {
    fn deadline(&self) -> Duration {
        self.started + Duration::from_millis(self.limits.timeout_ms)
    }

    fn printed_bytes(&self) -> u64 {
        self.stdout.capture.bytes() + self.stderr.capture.bytes()
    }

    fn into_done(self, processes_full: bool) -> Done {
        let end = match (self.killed, &self.exited) {
            (Some((why, _)), _) => why,
            (None, Some(reaped)) => end_of(reaped.status),
            (None, None) => End::Cancelled,
        };
        let usage = self.exited.as_ref().map(|it| &it.usage);
        Done {
            seq: self.seq,
            end,
            stdout: self.stdout.capture.finish(),
            stderr: self.stderr.capture.finish(),
            wall_us: micros(now().saturating_sub(self.started)),
            user_us: usage.map_or(0, |it| time_us(it.ru_utime)),
            system_us: usage.map_or(0, |it| time_us(it.ru_stime)),
            max_rss_bytes: usage.map_or(0, |it| it.ru_maxrss.unsigned_abs() * 1_024),
            processes_full,
            quiet: no_children_left(),
        }
    }
}

impl Done {
    fn refused(seq: u64, end: End) -> Self {
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
            quiet: false,
        }
    }
}

impl Stream {
    /// `false` when there is nothing to read now, or ever.
    fn read_once(&mut self, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipe = None,
            Ok(bytes) => {
                self.capture.push(&buffer[..bytes]);
                return true;
            }
            Err(rustix::io::Errno::INTR) => return true,
            Err(_again) => {}
        }
        false
    }
}

fn no_children_left() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
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

/// The monotonic clock. An init has no runtime whose clock it could take.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
