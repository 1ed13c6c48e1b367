//! The one loop of a slot-init.

use super::{
    command::Walls,
    kept::Kept,
    no_children_left, now,
    outbox::Outbox,
    running::{PIPE_BYTES_MAX, Running},
    sessions::Sessions,
    tree,
    watch::Watch,
};
use crate::{
    isolate::{Birth, sys},
    passing,
    wire::{Done, End, FRAME_BYTES_MAX, FromInit, Output, Run, Spawn, Stream, ToInit},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd,
};
use slotmux_protocol::{Decoder, Isolation};
use std::{
    collections::VecDeque,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

/// How long a killed tree may take to be gone before the answer goes out without it.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How often killing is repeated.
const TICK: Duration = Duration::from_millis(50);
/// Pipes of finished commands that background processes still write to. Older ones are closed.
pub(super) const ABANDONED_PIPES_MAX: usize = 64;
const READ_BYTES: usize = 64 << 10;

/// Serves the server until its end of the socket is closed.
pub(super) fn serve(
    server: UnixStream,
    birth: &Birth,
    walls: Walls,
    watch: Watch<'_>,
) -> io::Result<()> {
    let mut init = Looper {
        unsettled: false,
        server,
        decoder: Decoder::new(FRAME_BYTES_MAX),
        passed: Vec::new(),
        outbox: Outbox::default(),
        children: sys::child_signals()?,
        running: None,
        kept: None,
        sessions: Sessions::default(),
        abandoned: VecDeque::new(),
        buffer: vec![0; READ_BYTES],
        birth,
        walls,
        watch,
    };
    let result = init.turn_until_closed();
    init.kill_until_gone();
    if no_children_left() { result } else { Err(io::ErrorKind::ResourceBusy.into()) }
}

pub(super) struct Looper<'a> {
    /// A killed call was answered before all of its processes were gone.
    unsettled: bool,
    server: UnixStream,
    decoder: Decoder,
    /// Descriptors that came with an order, until it is whole.
    passed: Vec<OwnedFd>,
    pub(super) outbox: Outbox,
    children: OwnedFd,
    pub(super) running: Option<Running>,
    /// The persistent shell. While it runs a command, its pipes are with `running`.
    pub(super) kept: Option<Kept>,
    pub(super) sessions: Sessions,
    pub(super) abandoned: VecDeque<OwnedFd>,
    buffer: Vec<u8>,
    pub(super) birth: &'a Birth,
    pub(super) walls: Walls,
    watch: Watch<'a>,
}

/// What is ready, copied out of the poll so that nothing is borrowed.
struct Ready {
    orders: bool,
    server_listens: bool,
    children: bool,
    /// In the order of `Looper::pipes`.
    pipes: [bool; PIPES],
    abandoned: Vec<bool>,
}

/// Streams of the running command, of the persistent shell between its commands, and its status.
const PIPES: usize = 5;

impl Looper<'_> {
    fn turn_until_closed(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.server_listens {
                self.outbox.flush(&self.server)?;
            }
            let open_before = self.has_open_pipes();
            self.read_pipes(ready.pipes)?;
            self.drain_abandoned(&ready.abandoned);
            // A command that has closed its streams is about to end, or has: that is not worth
            // another turn.
            if ready.children || (open_before && !self.has_open_pipes()) {
                self.reap()?;
            }
            self.check_limits();
            self.finish_if_over()?;
            if ready.orders && !self.read_orders()? {
                return Ok(());
            }
        }
    }

    fn has_open_pipes(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|it| it.stdout.pipe.is_some() || it.stderr.pipe.is_some())
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let timeout = self.next_timeout().map(|it| Timespec {
            tv_sec: i64::try_from(it.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: it.subsec_nanos().into(),
        });
        let mut server = PollFlags::IN;
        server.set(PollFlags::OUT, !self.outbox.is_empty());
        let pipes = self.pipes();
        let mut fds = Vec::with_capacity(2 + PIPES + self.abandoned.len());
        fds.push(PollFd::new(&self.server, server));
        fds.push(PollFd::new(&self.children, PollFlags::IN));
        for pipe in pipes.into_iter().flatten().chain(&self.abandoned) {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let server = fds[0].revents();
        let mut ready = fds.iter().skip(1).map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        Ok(Ready {
            orders: !server.difference(PollFlags::OUT).is_empty(),
            server_listens: server.contains(PollFlags::OUT),
            children: next(),
            pipes: pipes.map(|it| it.is_some() && next()),
            abandoned: ready.collect(),
        })
    }

    fn pipes(&self) -> [Option<&OwnedFd>; PIPES] {
        let running = self.running.as_ref();
        // Who streams and is not listened to is held up.
        let told = running.filter(|it| !(it.streamed && self.outbox.is_full()));
        let kept = self.kept.as_ref();
        [
            told.and_then(|it| it.stdout.pipe.as_ref()),
            told.and_then(|it| it.stderr.pipe.as_ref()),
            kept.and_then(|it| it.stdout.pipe.as_ref()),
            kept.and_then(|it| it.stderr.pipe.as_ref()),
            kept.and_then(|it| it.status.as_ref()),
        ]
    }

    fn next_timeout(&self) -> Option<Duration> {
        let watched = self.watch.next_timeout();
        match &self.running {
            Some(Running { killed: Some(_), .. }) => Some(TICK),
            Some(running) => {
                let left = running.deadline().saturating_sub(now());
                Some(watched.map_or(left, |it| it.min(left)))
            }
            None if self.unsettled => Some(TICK),
            None => watched,
        }
    }

    /// `false`: the server has closed its end.
    fn read_orders(&mut self) -> io::Result<bool> {
        loop {
            let server = self.server.as_fd();
            match passing::receive_with(server, &mut self.buffer, &mut self.passed) {
                Ok(0) => return Ok(false),
                Ok(bytes) => {
                    self.decoder.push(&self.buffer[..bytes]);
                    // A short one is all that there was.
                    if bytes < self.buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(order) = self.decoder.next_message::<ToInit>().map_err(io::Error::other)? {
            match order {
                ToInit::Run(run) => self.run(*run)?,
                // It has ended meanwhile: what else there is in the slot is not meant.
                ToInit::Cancel | ToInit::Over(_) if self.running.is_none() => {}
                ToInit::Cancel => self.kill(End::Cancelled),
                ToInit::Over(end) => self.kill(end),
                ToInit::Spawn(spawn) => self.spawn(&spawn)?,
                ToInit::EndSession { id } => self.sessions.end(self.birth, id),
            }
        }
        Ok(true)
    }

    fn run(&mut self, run: Run) -> io::Result<()> {
        let (seq, network) = (run.seq, run.network);
        let disturbed = self.settle();
        self.watch.begin(&run.limits);
        match self.begin(run) {
            Ok(running) => {
                self.sessions.is_new(running.pid);
                self.running = Some(Running { disturbed, ..running });
                self.tell_carried()
            }
            Err(end) => self.tell(Done::refused(seq, end, network)),
        }
    }

    /// What is left of a call that was killed must not be there for what comes next. Whether there
    /// was anything.
    fn settle(&mut self) -> bool {
        let unsettled = std::mem::take(&mut self.unsettled);
        if unsettled {
            self.kill_until_gone();
        }
        unsettled
    }

    fn spawn(&mut self, spawn: &Spawn) -> io::Result<()> {
        self.settle();
        let passed = std::mem::take(&mut self.passed);
        let spawned = if self.outbox.is_empty() {
            self.sessions.spawn(&mut self.walls, self.birth, spawn, passed)
        } else {
            Err(End::NotStarted(libc::EAGAIN))
        };
        let (refused, master) = match spawned {
            Ok(master) => (None, master),
            Err(end) => (Some(end), None),
        };
        let answer = FromInit::Spawned { id: spawn.id, refused };
        match master {
            Some(master) => self.outbox.push_with(&self.server, &answer, &[master]),
            None => self.outbox.push(&self.server, &answer),
        }
    }

    fn read_pipes(&mut self, ready: [bool; PIPES]) -> io::Result<()> {
        let [stdout, stderr, kept_stdout, kept_stderr, status] = ready;
        if let Some(kept) = &mut self.kept {
            for (stream, is_ready) in
                [(&mut kept.stdout, kept_stdout), (&mut kept.stderr, kept_stderr)]
            {
                if is_ready {
                    stream.read_once(&mut self.buffer);
                }
            }
        }
        for (stream, is_ready) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if is_ready {
                self.read_output(stream)?;
            }
        }
        if let Some(running) = &self.running {
            let max = running.limits.output_bytes_max;
            if max > 0 && running.printed_bytes() > max {
                self.kill(End::OutputLimit);
            }
        }
        if status {
            self.hear_status();
        }
        Ok(())
    }

    /// One piece of a stream. `false`: there was none.
    fn read_output(&mut self, stream: Stream) -> io::Result<bool> {
        let Some(running) = &mut self.running else { return Ok(false) };
        let Some(bytes) = running.stream(stream).read_once(&mut self.buffer) else {
            return Ok(false);
        };
        if running.streamed {
            let data = self.buffer[..bytes].to_vec();
            let output = FromInit::Output(Output { seq: running.seq, stream, data });
            self.outbox.push(&self.server, &output)?;
        }
        Ok(true)
    }

    /// What stands at the head of the output has to be told as the rest is.
    fn tell_carried(&mut self) -> io::Result<()> {
        let Some(running) = self.running.as_mut().filter(|it| it.streamed) else { return Ok(()) };
        let seq = running.seq;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let data = running.stream(stream).capture.so_far();
            if !data.is_empty() {
                let output = FromInit::Output(Output { seq, stream, data });
                self.outbox.push(&self.server, &output)?;
            }
        }
        Ok(())
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
        self.watch.note_exit(&reaped);
        self.sessions.note_exit(reaped.pid, reaped.status);
        if self.kept.as_ref().is_some_and(|it| it.pid == reaped.pid) {
            // The status of its last command may have come just before its end.
            self.hear_status();
            if let Some(kept) = &mut self.kept {
                kept.ended = Some(reaped.status);
            }
        }
        if let Some(running) = &mut self.running
            && running.pid == reaped.pid
            && running.exited.is_none()
        {
            running.exited = Some(reaped);
        }
    }

    fn check_limits(&mut self) {
        if self.running.as_ref().is_some_and(|it| it.exited.is_none() && now() >= it.deadline()) {
            self.kill(End::Timeout);
        }
        if let Some(over) = self.watch.check() {
            self.kill(over);
        }
    }

    /// Ends everything in the slot. The first reason stands.
    fn kill(&mut self, why: End) {
        if let Some(running) = &mut self.running {
            running.killed.get_or_insert((why, now()));
        }
        tree::kill(self.birth);
    }

    fn finish_if_over(&mut self) -> io::Result<()> {
        let Some(running) = &self.running else { return self.kill_the_rest() };
        match (&running.exited, running.killed) {
            (Some(_), None) => match self.watch.check_at_end() {
                None => self.finish(),
                Some(over) => {
                    self.kill(over);
                    Ok(())
                }
            },
            (_, Some((_, since))) if now() >= since + KILL_PATIENCE => {
                self.unsettled = true;
                self.finish()
            }
            (Some(_), Some(_)) if no_children_left() => self.finish(),
            (_, Some(_)) => {
                tree::kill(self.birth);
                self.reap()
            }
            (None, None) => Ok(()),
        }
    }

    /// Of a call that was answered before all of it was gone.
    fn kill_the_rest(&mut self) -> io::Result<()> {
        if self.unsettled {
            tree::kill(self.birth);
            self.reap()?;
            self.unsettled = !no_children_left();
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            // All that the command itself wrote is in the pipe. What a background process adds
            // meanwhile must not keep the answer, so no more is read than a pipe can hold.
            let read =
                |it: &mut Self| it.running.as_mut().map(|it| it.stream(stream).capture.bytes());
            let until = read(self).unwrap_or(0) + PIPE_BYTES_MAX;
            while self.read_output(stream)? && read(self).unwrap_or(until) < until {}
        }
        let Some(mut running) = self.running.take() else { return Ok(()) };
        self.give_pipes_back(&mut running);
        let full = self.is_full_of_processes(&running);
        let failed = running.exited.as_ref().is_none_or(|it| it.status != 0);
        let seen = self.watch.seen(failed);
        self.tell(running.into_done(full, seen))
    }

    fn is_full_of_processes(&self, running: &Running) -> bool {
        let failed = running.exited.as_ref().is_none_or(|it| it.status != 0);
        // A cgroup counts what was refused, exactly.
        let max = if self.birth.pids_cgroup { 0 } else { self.birth.limits.processes_max as usize };
        // The command itself has left the count by now, and threads that it had with it.
        let gone = (max / 32).max(4).min(max.saturating_sub(1));
        if !failed || max == 0 {
            return false;
        }
        let shared = self.birth.rung <= Isolation::Landlock;
        if shared && !rustix::process::geteuid().is_root() {
            // As the kernel counts, for all slots of this user together.
            return tree::tasks_of(self.birth.server_uid) + gone >= self.walls.processes_max();
        }
        tree::processes(self.birth).len() + gone >= max
    }

    fn tell(&mut self, done: Done) -> io::Result<()> {
        self.outbox.push(&self.server, &FromInit::Done(Box::new(done)))
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
