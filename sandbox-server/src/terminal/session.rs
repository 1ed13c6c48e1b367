//! One terminal session: its program, and what can be asked of it.

use super::{
    pump::{Shared, pump, until},
    screen::Size,
    shell,
    state::State,
};
use crate::slot::{InitError, InitProcess, SessionEnd, SessionId, SpawnArgs, SpawnError};
use rustix::rand::{GetRandomFlags, getrandom};
use slotmux_protocol::Network;
use std::{
    fmt, io,
    sync::{Arc, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a program that makes no marks has the terminal back.
const FOREGROUND_TICK: Duration = Duration::from_millis(5);
/// How long a shell may take to show its first prompt before the call goes on without it.
const FIRST_PROMPT_PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing is to be printed before a key that is a signal, and how long that may take.
const QUIET: Duration = Duration::from_millis(5);
const QUIET_PATIENCE: Duration = Duration::from_millis(50);
const KILL_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    shared: Arc<Shared>,
    pump: AbortHandle,
}

/// When a call has to come back.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) deadline: Instant,
    pub(super) stop: CancellationToken,
}

/// Why a call came back before it was through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    TimeOver,
    Cancelled,
}

impl Bounds {
    async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Cut> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Cut::Cancelled),
            done = timeout_at(self.deadline, work) => done.map_err(|_elapsed| Cut::TimeOver),
        }
    }
}

/// How long to wait, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) min: Duration,
    pub(super) max: Option<Duration>,
    /// Until it is done; else for the shortest time only.
    pub(super) until_done: bool,
}

pub(super) struct Start {
    pub(super) command: Option<String>,
    pub(super) size: Size,
    pub(super) network: Network,
}

/// C-c, C-z and C-\, as long as nobody gives that meaning to others.
fn is_signal(key: u8) -> bool {
    matches!(key, 0x03 | 0x1a | 0x1c)
}

impl Session {
    pub(super) async fn start(
        init: &mut InitProcess,
        start: Start,
        heavy: Arc<Semaphore>,
    ) -> Result<Self, SpawnError> {
        let nonce = nonce().map_err(SpawnError::Terminal)?;
        let (command, mut env) = if let Some(command) = start.command {
            let env = shell::environment_for(&command, &nonce);
            (command, env)
        } else {
            let path = crate::init::find_shell().ok_or(SpawnError::NoShell)?;
            shell::interactive(&path, &nonce)
        };
        let (rows, cols) = (start.size.rows.get(), start.size.cols.get());
        env.insert("TERM".to_owned(), super::TERM.to_owned());
        let args = SpawnArgs {
            command: Some(command),
            env,
            cwd: None,
            network: start.network,
            rows,
            cols,
        };
        let spawned = init.spawn_terminal(args).await?;
        let state = State::new(start.size, &nonce);
        let shared = Arc::new(Shared::new(spawned.terminal, state, heavy));
        let pump = tokio::spawn(pump(Arc::clone(&shared), spawned.ended)).abort_handle();
        Ok(Self { id: spawned.id, shared, pump })
    }

    /// Not to be held over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Waits for a shell's first prompt. What is typed before it would be seen twice: by the
    /// terminal, and by the shell.
    pub(super) async fn greet(&self, bounds: &Bounds) -> Result<(), Cut> {
        let wait = Wait { min: Duration::ZERO, max: Some(FIRST_PROMPT_PATIENCE), until_done: true };
        self.wait(wait, bounds).await
    }

    /// Types all of it, or says how much was.
    pub(super) async fn type_in(&self, bytes: &[u8], bounds: &Bounds) -> Result<(), TypeError> {
        self.state().typed(bytes);
        let mut typed = 0;
        for keys in bytes.chunk_by(|_, next| !is_signal(*next)) {
            if keys.first().is_some_and(|it| is_signal(*it)) {
                let quiet = bounds.within(self.until_quiet()).await;
                quiet.map_err(|cut| TypeError::Cut { cut, typed })?;
            }
            let end = typed + keys.len();
            while typed < end {
                let write = bounds.within(self.shared.terminal.write(&bytes[typed..end])).await;
                match write.map_err(|cut| TypeError::Cut { cut, typed })? {
                    Ok(written) => typed += written,
                    Err(source) => return Err(TypeError::Closed(source)),
                }
            }
        }
        Ok(())
    }

    /// Waits until what was typed is read and nothing is printed any more, if that is soon.
    ///
    /// A readline that is told of a signal between two keys, while it shows the first, minds it
    /// only when the next one is there: after what it was sent to interrupt.
    async fn until_quiet(&self) {
        let until = Instant::now() + QUIET_PATIENCE;
        let mut changes = self.shared.changes();
        while Instant::now() < until {
            changes.mark_unchanged();
            match timeout(QUIET, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_ended)) => return,
                Err(_elapsed) if self.shared.terminal.has_unread().unwrap_or(false) => {}
                Err(_elapsed) => return,
            }
        }
    }

    /// Comes back when it is done and the shortest time is over, or when the longest time is.
    pub(super) async fn wait(&self, wait: Wait, bounds: &Bounds) -> Result<(), Cut> {
        let began = Instant::now();
        let wanted = async {
            if wait.until_done {
                match wait.max {
                    // Not done in time is an answer, too.
                    Some(max) => drop(timeout(max, self.done()).await),
                    None => self.done().await,
                }
            }
            tokio::time::sleep_until(began + wait.min).await;
        };
        bounds.within(wanted).await
    }

    async fn done(&self) {
        let mut changes = self.shared.changes();
        let mut other_had_it = false;
        loop {
            changes.mark_unchanged();
            let (done, marked, at) = {
                let state = self.state();
                let progress = &state.progress;
                (state.is_done(Instant::now()), progress.is_marked(), progress.done_at())
            };
            if done {
                return;
            }
            let mut next = at;
            if !marked {
                match self.shared.terminal.is_leader_in_foreground() {
                    Ok(false) => other_had_it = true,
                    Ok(true) if other_had_it => return,
                    Ok(true) | Err(_) => {}
                }
                next = Some(Instant::now() + FOREGROUND_TICK);
            }
            tokio::select! {
                news = changes.changed() => if news.is_err() { return },
                () = until(next) => {}
            }
        }
    }

    pub(super) fn resize(&self, size: Size) -> io::Result<()> {
        // First: what the program prints to the new size must find it.
        self.state().resized(size);
        self.shared.terminal.resize(size.rows.get(), size.cols.get())
    }

    /// Kills what is left of it, and waits until its end is known, if that does not take long.
    pub(super) async fn stop(&self, init: &mut InitProcess) -> Result<(), InitError> {
        init.end_session(self.id).await?;
        let mut changes = self.shared.changes();
        let ended =
            async { while self.state().end.is_none() && changes.changed().await.is_ok() {} };
        // The rest is the init's, and goes with the slot at the latest.
        let _ = timeout(KILL_PATIENCE, ended).await;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

#[derive(Debug)]
pub(super) enum TypeError {
    Cut {
        cut: Cut,
        typed: usize,
    },
    /// Nobody has the terminal open any more.
    Closed(io::Error),
}

/// How a program ended, in words.
#[derive(Debug)]
pub(super) struct Told(pub(super) SessionEnd);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SessionEnd::Exited(code) => write!(f, "exited with code {code}"),
            SessionEnd::Signaled(signal) => write!(f, "was killed by signal {signal}"),
            SessionEnd::Lost => f.write_str("was lost with the slot's processes"),
        }
    }
}

/// Not to be known beforehand: a program that prints by chance what a shell says is no shell.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
