//! Sessions: processes of a slot behind a terminal that the server keeps.
//!
//! They are children of the slot's init, behind the same walls as commands, and end with the slot
//! at the latest. How to use them:
//!
//! - [`InitProcess::spawn_terminal`] starts one: a command, or an interactive shell without one.
//!   It takes microseconds and is to be called by whoever has the slot's turn.
//! - [`Spawned::terminal`] is its screen side: `read` what was printed (0 bytes: nobody has the
//!   terminal open any more), `write` what is typed, `resize` it. All by `&self`, cancel-safe, so
//!   that one task can read while others write.
//! - [`Spawned::ended`] tells how the process ended, once and for all. Others of its terminal may
//!   live on.
//! - [`InitProcess::end_session`] kills the process and all that still belong to its session. To
//!   drop the [`Terminal`] sends them a hang-up first.
//!
//! What is read comes from a hostile slot: bytes without meaning, at any speed. Whoever does not
//! read holds the slot's processes up, and nobody else.

use super::process::{InitError, InitProcess};
use crate::{
    isolate::pty,
    wire::{End, Spawn},
};
use rustix::fd::{AsFd, OwnedFd};
use slotmux_protocol::{Isolation, Network};
use std::{collections::BTreeMap, io};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::unix::pipe,
};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct SpawnArgs {
    /// An interactive shell without it.
    pub(crate) command: Option<String>,
    /// Added to what commands have; `TERM` is `dumb` without it.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: Option<String>,
    pub(crate) network: Network,
    pub(crate) rows: u16,
    pub(crate) cols: u16,
}

#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) id: SessionId,
    pub(crate) terminal: Terminal,
    pub(crate) ended: SessionEnded,
}

/// Of one init, and never used again by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(u64);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("open a terminal")]
    Terminal(#[source] io::Error),
    /// The kernel or the slot's limits refused it.
    #[error("start the command")]
    NotStarted(#[source] io::Error),
    #[error("enter the directory")]
    NoDirectory(#[source] io::Error),
    #[error("there is no shell in the container")]
    NoShell,
    /// The init is of no use any more.
    #[error(transparent)]
    Init(#[from] InitError),
}

/// How a session's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    Exited(i32),
    Signaled(i32),
    /// Its init went away first.
    Lost,
}

/// The master of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    #[expect(unsafe_code, reason = "tokio asks us to vouch for the descriptor")]
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: `OwnedFd` is open, and `AsyncFd` owns it until both are dropped.
        let master = unsafe { AsyncFd::register_with_interest(master, interest) }?;
        Ok(Self { master })
    }

    /// What was printed; 0 bytes when nobody has the terminal open any more.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.master.async_io(Interest::READABLE, |master| {
            rustix::io::read(master, &mut *buffer).map_err(io::Error::from)
        });
        match read.await {
            // So the kernel says that the other side is closed.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    /// Types some of `bytes`, and says how many. Waits while the other side does not read.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let write = |master: &OwnedFd| rustix::io::write(master, bytes).map_err(io::Error::from);
        self.master.async_io(Interest::WRITABLE, write).await
    }

    /// Whether something was typed that waits to be read.
    pub(crate) fn has_unread(&self) -> io::Result<bool> {
        Ok(pty::unread_bytes(self.master.get_ref())? > 0)
    }

    /// Whether the process that the session was started with reads what is typed, and not one
    /// that it has started.
    pub(crate) fn is_leader_in_foreground(&self) -> io::Result<bool> {
        let master = self.master.get_ref();
        Ok(rustix::termios::tcgetpgrp(master)? == rustix::termios::tcgetsid(master)?)
    }

    /// Processes in the foreground hear of it by SIGWINCH.
    pub(crate) fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        pty::resize(self.master.get_ref().as_fd(), rows, cols)
    }
}

/// Tells how a session's process ended.
#[derive(Debug)]
pub(crate) struct SessionEnded {
    pipe: pipe::Receiver,
    told: Vec<u8>,
    end: Option<SessionEnd>,
}

impl SessionEnded {
    /// Waits for it. Cancel-safe, and the same each time.
    pub(crate) async fn wait(&mut self) -> SessionEnd {
        loop {
            if let Some(end) = self.end {
                return end;
            }
            match self.pipe.read_buf(&mut self.told).await {
                Ok(1..) if self.told.len() < pty::STATUS_BYTES => {}
                Ok(_) => self.end = Some(status_of(&self.told)),
                Err(_broken) => self.end = Some(SessionEnd::Lost),
            }
        }
    }
}

fn status_of(told: &[u8]) -> SessionEnd {
    let Some(status) = told.first_chunk().map(|it| i32::from_ne_bytes(*it)) else {
        return SessionEnd::Lost;
    };
    if libc::WIFSIGNALED(status) {
        SessionEnd::Signaled(libc::WTERMSIG(status))
    } else {
        SessionEnd::Exited(libc::WEXITSTATUS(status))
    }
}

impl InitProcess {
    /// Starts a process on a terminal of its own.
    pub(crate) async fn spawn_terminal(&mut self, args: SpawnArgs) -> Result<Spawned, SpawnError> {
        let (ended, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| SpawnError::Terminal(error.into()))?;
        rustix::io::ioctl_fionbio(&ended, true)
            .map_err(|error| SpawnError::Terminal(error.into()))?;
        let SpawnArgs { command, env, cwd, network, rows, cols } = args;
        // Behind file rules nobody can open one: it is opened here and handed in.
        let ours = (self.rung() != Isolation::Namespaces)
            .then(|| pty::open(c"/dev/ptmx", self.owner(), rows, cols))
            .transpose()
            .map_err(SpawnError::Terminal)?;
        let mut handed = vec![end];
        let master = ours.map(|pair| {
            handed.push(pair.slave);
            pair.master
        });
        let id = self.next_seq();
        let spawn = Spawn { id, command, env, cwd, network, rows, cols };
        let (refused, theirs) = self.spawn(spawn, handed).await?;
        match refused {
            None => {}
            Some(End::NoShell) => return Err(SpawnError::NoShell),
            Some(End::NoDirectory(errno)) => {
                return Err(SpawnError::NoDirectory(io::Error::from_raw_os_error(errno)));
            }
            Some(End::NotStarted(errno)) => {
                return Err(SpawnError::NotStarted(io::Error::from_raw_os_error(errno)));
            }
            Some(_) => return Err(SpawnError::NotStarted(io::ErrorKind::Other.into())),
        }
        let master = master
            .or(theirs)
            .ok_or_else(|| SpawnError::Terminal(io::Error::other("the terminal did not come")))?;
        Ok(Spawned {
            id: SessionId(id),
            terminal: Terminal::new(master).map_err(SpawnError::Terminal)?,
            ended: SessionEnded {
                pipe: pipe::Receiver::from_owned_fd(ended).map_err(SpawnError::Terminal)?,
                told: Vec::with_capacity(pty::STATUS_BYTES),
                end: None,
            },
        })
    }

    /// Kills what is left of a session. How it ends is told by its [`SessionEnded`].
    pub(crate) async fn end_session(&mut self, id: SessionId) -> Result<(), InitError> {
        self.end_spawned(id.0).await
    }
}
