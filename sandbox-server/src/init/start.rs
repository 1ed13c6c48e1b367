//! Beginning to run what was ordered: a shell of the command's own, or the persistent one.

use super::{
    command::{Launch, Leads, environment_of, not_started, output_pipe},
    kept::{Awaited, Kept},
    looper::{ABANDONED_PIPES_MAX, Looper},
    now,
    running::{Pipe, Running, new_capture},
    tree,
};
use crate::wire::{End, Run, Shell};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{MemfdFlags, SealFlags, SeekFrom},
};
use slotmux_protocol::{Isolation, Network};
use std::{
    ffi::{CStr, CString},
    io,
};

/// How long processes that are gone may still be counted.
const UNCOUNTED_MAX: std::time::Duration = std::time::Duration::from_secs(2);

impl Looper<'_> {
    pub(super) fn begin(&mut self, run: Run) -> Result<Running, End> {
        if !self.walls.has_shell() {
            return Err(End::NoShell);
        }
        let nul = || End::NotStarted(libc::EINVAL);
        let command = CString::new(run.args.command.as_str()).map_err(|_| nul())?;
        match run.shell {
            Shell::Fresh => self.begin_fresh(&run, &command),
            Shell::Kept => self.begin_kept(&run, &command),
            Shell::Restarted => {
                self.end_kept();
                self.begin_kept(&run, &command)
            }
        }
    }

    fn begin_fresh(&mut self, run: &Run, command: &CStr) -> Result<Running, End> {
        let started = now();
        let nul = || End::NotStarted(libc::EINVAL);
        let env = environment_of(&run.args.env).ok_or_else(nul)?;
        let cwd = run.args.cwd.as_deref().map(CString::new).transpose().map_err(|_| nul())?;
        let in_own_namespace = self.birth.rung == Isolation::Namespaces;
        self.with_room(|it| {
            let (stdout, stdout_end) = output_pipe()?;
            let (stderr, stderr_end) = output_pipe()?;
            let stdin = run.args.stdin.as_deref().filter(|it| !it.is_empty());
            let stdin = stdin.map(input_of).transpose().map_err(|error| not_started(&error))?;
            let pid = it.walls.start(&Launch {
                // `--`: a command may begin with a dash.
                argv: &[c"-c", c"--", command],
                env: &env,
                cwd: cwd.as_deref(),
                network: run.network,
                stdin: stdin.as_ref().map(AsFd::as_fd),
                stdout: stdout_end.as_fd(),
                stderr: stderr_end.as_fd(),
                more: &[],
                leads: if in_own_namespace { Leads::Group } else { Leads::Session },
                cpu_ms_max: run.limits.cpu_ms_max,
            })?;
            Ok(Running {
                seq: run.seq,
                pid,
                limits: run.limits,
                network: run.network,
                started,
                stdout: Pipe::new(stdout, &run.limits),
                stderr: Pipe::new(stderr, &run.limits),
                streamed: run.streamed,
                kept: None,
                killed: None,
                disturbed: false,
                exited: None,
            })
        })
    }

    fn begin_kept(&mut self, run: &Run, command: &CStr) -> Result<Running, End> {
        let started = now();
        if !self.walls.has_bash() {
            return Err(End::NoBash);
        }
        if let Some(kept) = self.kept.as_ref().filter(|it| it.ended.is_none())
            && kept.network != Network::Off
            && run.network == Network::Off
        {
            return Err(End::HasNetwork);
        }
        let printed = self.kept.as_mut().map(|it| it.take_printed(&run.limits));
        let (printed_stdout, printed_stderr) = printed.unwrap_or_default();
        if self.kept.as_ref().is_some_and(|it| it.ended.is_some()) {
            self.end_kept();
        }
        let awaited = self.give(run, command)?;
        let Some(kept) = &mut self.kept else { return Err(End::NoBash) };
        let mut running = Running {
            seq: run.seq,
            pid: kept.pid,
            limits: run.limits,
            network: kept.network,
            started,
            stdout: Pipe { pipe: kept.stdout.pipe.take(), capture: new_capture(&run.limits) },
            stderr: Pipe { pipe: kept.stderr.pipe.take(), capture: new_capture(&run.limits) },
            streamed: run.streamed,
            kept: Some(awaited),
            killed: None,
            disturbed: false,
            exited: None,
        };
        running.stdout.capture.push(&printed_stdout);
        running.stderr.capture.push(&printed_stderr);
        Ok(running)
    }

    /// To the shell that there is, or to a new one.
    fn give(&mut self, run: &Run, command: &CStr) -> Result<Awaited, End> {
        if let Some(kept) = &mut self.kept {
            if let Ok(awaited) = kept.give(command) {
                return Ok(awaited);
            }
            // A job of it has made it unusable, or has just ended it.
            self.end_kept();
        }
        let mut kept = self.with_room(|it| Kept::start(&mut it.walls, run.network, &run.limits))?;
        let given = kept.give(command);
        self.kept = Some(kept);
        given.map_err(|error| {
            self.end_kept();
            not_started(&error)
        })
    }

    /// Ends the persistent shell, with all that it started and that still belongs to it.
    fn end_kept(&mut self) {
        let Some(mut kept) = self.kept.take() else { return };
        if kept.ended.is_none() {
            tree::kill_session(self.birth, kept.pid);
        }
        self.abandon([kept.stdout.pipe.take(), kept.stderr.pipe.take()]);
    }

    /// Reads what the persistent shell says of its command.
    pub(super) fn hear_status(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let awaited = self.running.as_mut().and_then(|it| it.kept.as_mut());
        let reaped = kept.listen(awaited);
        if let (Some(reaped), Some(running)) = (reaped, &mut self.running) {
            running.exited.get_or_insert(reaped);
        }
    }

    /// The pipes of a command that is over: to the persistent shell, or to nobody.
    pub(super) fn give_pipes_back(&mut self, running: &mut Running) {
        let pipes = [running.stdout.pipe.take(), running.stderr.pipe.take()];
        match &running.kept {
            Some(awaited) if awaited.came_back && running.killed.is_none() => {
                let Some(kept) = &mut self.kept else { return };
                let [stdout, stderr] = pipes;
                let capture = || new_capture(&running.limits);
                kept.stdout = Pipe { pipe: stdout, capture: capture() };
                kept.stderr = Pipe { pipe: stderr, capture: capture() };
            }
            Some(_) => {
                self.kept = None;
                self.abandon(pipes);
            }
            None => self.abandon(pipes),
        }
    }

    fn abandon(&mut self, pipes: [Option<OwnedFd>; 2]) {
        self.abandoned.extend(pipes.into_iter().flatten());
        while self.abandoned.len() > ABANDONED_PIPES_MAX {
            self.abandoned.pop_front();
        }
    }

    /// Pipes that background processes hold may take all descriptors there are: the oldest go. And
    /// processes that are gone are counted by the kernel a moment longer.
    fn with_room<T>(
        &mut self,
        mut start: impl FnMut(&mut Self) -> Result<T, End>,
    ) -> Result<T, End> {
        let until = now() + UNCOUNTED_MAX;
        loop {
            match start(self) {
                Err(End::NotStarted(libc::EMFILE)) if self.abandoned.pop_front().is_some() => {}
                // A cgroup counts each time that it is tried; there the server has waited.
                Err(End::NotStarted(libc::EAGAIN))
                    if !self.birth.pids_cgroup && super::no_children_left() && now() < until =>
                {
                    let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                    let _ = rustix::event::poll(&mut [], Some(&tick));
                }
                other => return other,
            }
        }
    }
}

/// A file that nobody can change: who reads it waits for nobody, and nobody for who does not.
fn input_of(text: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"stdin", flags)?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}
