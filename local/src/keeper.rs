//! The life of one container from its start to its last file: one task for each.
//!
//! Invariant: an end that nobody asked for is told as soon as the process ended, one that was asked
//! for when nothing is left; the container's name is free again only then, in both cases.

use crate::{
    LocalSettings, command,
    container::{Container, log_end},
    exit,
    layout::ContainerDir,
    process::Exited,
    ready::{self, ReadyError},
    remove,
};
use rustix::process::Signal;
use slotmux_backend::{Address, Exit, Fact, Phase, Seen, Teller};
use slotmux_protocol::ContainerId;
use std::{fs::OpenOptions, io, path::Path, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// A log that grew over this is cut down to its end.
const LOG_BYTES_MAX: u64 = 8 << 20;
const LOG_BYTES_KEPT: usize = 1 << 20;
const LOG_LOOKED_AT: Duration = Duration::from_secs(10);

/// Of a log, for the reason of an end.
const LAST_WORDS_BYTES: usize = 4 << 10;

const CLEAN_UP_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    Ready(Address),
    /// Its process ended; its directory is being removed.
    Ended,
    /// Nothing is left, or why something is.
    Removed(Result<(), String>),
}

/// What others hold of a container that has a keeper.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) seen: Seen,
    pub(crate) stage: watch::Receiver<Stage>,
    /// The grace of the stop that was asked for.
    stop: watch::Sender<Option<Duration>>,
}

pub(crate) struct Keeper {
    pub(crate) settings: Arc<LocalSettings>,
    pub(crate) teller: Arc<Teller>,
    container: Container,
    exited: Exited,
    stage: watch::Sender<Stage>,
    stop: watch::Receiver<Option<Duration>>,
}

impl Held {
    pub(crate) fn ask_to_stop(&self, grace: Duration) {
        self.stop.send_replace(Some(grace));
    }

    /// `None`: it ended already.
    pub(crate) fn seen_now(&self) -> Option<Seen> {
        let phase = match &*self.stage.borrow() {
            Stage::Starting => Phase::Starting,
            Stage::Ready(address) => Phase::Ready(address.clone()),
            Stage::Ended | Stage::Removed(_) => return None,
        };
        Some(Seen { phase, ..self.seen.clone() })
    }

    /// Waits until the directory is gone too.
    pub(crate) async fn removed(&self) -> Result<(), String> {
        let mut stage = self.stage.clone();
        match stage.wait_for(|stage| matches!(stage, Stage::Removed(_))).await.as_deref() {
            Ok(Stage::Removed(result)) => result.clone(),
            Ok(_) | Err(_) => Err("nobody watches it any more".to_owned()),
        }
    }
}

impl Keeper {
    pub(crate) fn new(
        settings: Arc<LocalSettings>,
        teller: Arc<Teller>,
        container: Container,
    ) -> io::Result<(Self, Held)> {
        let record = &container.record;
        // One that an earlier pool started may be ready; a list of it must say so.
        let first = match ready::look(&container.dir.ready(), &record.token) {
            Ok(Some(address)) => Stage::Ready(address),
            Ok(None) | Err(_) => Stage::Starting,
        };
        let seen = Seen {
            container: record.container.clone(),
            labels: record.labels(),
            slots: record.slots,
            phase: Phase::Starting,
        };
        let (stage, stage_seen) = watch::channel(first);
        let (stop_asked, stop) = watch::channel(None);
        let exited = container.process.watch()?;
        let keeper = Self { settings, teller, container, exited, stage, stop };
        Ok((keeper, Held { seen, stage: stage_seen, stop: stop_asked }))
    }

    /// To the end of the container. `forget` is called when its name is free again.
    pub(crate) async fn run(self, forget: impl FnOnce()) {
        let asked = match self.live().await {
            Ok(Life::Ended) => None,
            Ok(Life::ToStop(grace)) => Some(self.end(grace).await),
            Err(broken) => {
                tracing::warn!(container = %self.name(), why = broken, "container is being ended");
                Some(self.end(Duration::ZERO).await)
            }
        };
        if let Some(Err(error)) = &asked {
            tracing::error!(container = %self.name(), %error, "container cannot be ended");
        }
        let exit = self.exit(self.stop.borrow().is_some());
        tracing::info!(container = %self.name(), reason = exit.reason, "container ended");
        self.stage.send_replace(Stage::Ended);
        let gone = Fact::Gone { container: self.name().clone(), exit };
        let removed = if asked.is_some() {
            // Whoever asked wants to know it gone with everything.
            let removed = self.remove_debris().await;
            self.teller.tell(gone).await;
            removed
        } else {
            // Leases hang on it, and their holders are to hear at once.
            self.teller.tell(gone).await;
            self.remove_debris().await
        };
        forget();
        self.stage.send_replace(Stage::Removed(removed.map_err(|error| error.to_string())));
    }

    async fn remove_debris(&self) -> io::Result<()> {
        let removed = remove_debris(&self.settings, &self.container.dir, Some(self.name())).await;
        if let Err(error) = &removed {
            tracing::error!(container = %self.name(), %error, "container left files behind");
        }
        removed
    }

    fn name(&self) -> &ContainerId {
        &self.container.record.container
    }

    /// Until it ends, or is to be stopped. An error says why it cannot go on.
    async fn live(&self) -> Result<Life, String> {
        let mut look_at_log = interval(LOG_LOOKED_AT);
        look_at_log.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ready_file = self.container.dir.ready();
        let token = self.container.record.token.clone();
        // Also of one that was ready when it was adopted: news may be repeated, never missed.
        let ready = ready::address(&ready_file, &token);
        let mut ready = std::pin::pin!(ready);
        let mut asked = std::pin::pin!(asked(self.stop.clone()));
        let mut ready_told = false;
        loop {
            tokio::select! {
                biased;
                // An end wins: a container that ended is not ready, whatever its file says.
                exited = self.exited.wait() => {
                    return exited.map(|()| Life::Ended).map_err(|error| error.to_string());
                }
                grace = &mut asked => return Ok(Life::ToStop(grace)),
                address = &mut ready, if !ready_told => {
                    ready_told = true;
                    self.became_ready(address).await?;
                }
                _ = look_at_log.tick() => cut_log(&self.container.dir.log()),
            }
        }
    }

    async fn became_ready(&self, address: Result<Address, ReadyError>) -> Result<(), String> {
        let address = address.map_err(|error| error.to_string())?;
        let container = self.name().clone();
        tracing::info!(%container, address = address.authority, "container is ready");
        self.stage.send_replace(Stage::Ready(address.clone()));
        self.teller.tell(Fact::Ready { container, address }).await;
        Ok(())
    }

    /// Asks for its end, then forces it.
    async fn end(&self, grace: Duration) -> io::Result<()> {
        if !grace.is_zero() {
            self.container.process.signal(Signal::TERM)?;
            if let Ok(exited) = timeout(grace, self.exited.wait()).await {
                return exited;
            }
        }
        self.container.process.signal(Signal::KILL)?;
        self.exited.wait().await
    }

    fn exit(&self, asked: bool) -> Exit {
        // Reaped in any case, so that no zombie stays.
        let status = self.container.process.reap().unwrap_or_else(|error| {
            tracing::warn!(container = %self.name(), %error, "exit status not read");
            None
        });
        if asked {
            return exit::of_asked();
        }
        let log = log_end(&self.container.dir.log(), LAST_WORDS_BYTES).unwrap_or_default();
        exit::of_unasked(status, &log)
    }
}

enum Life {
    Ended,
    ToStop(Duration),
}

async fn asked(mut stop: watch::Receiver<Option<Duration>>) -> Duration {
    loop {
        if let Some(grace) = *stop.borrow_and_update() {
            return grace;
        }
        if stop.changed().await.is_err() {
            // Without a sender, nobody is left who could ask.
            return std::future::pending().await;
        }
    }
}

/// Removes what is left of a container whose process ended.
pub(crate) async fn remove_debris(
    settings: &LocalSettings,
    dir: &ContainerDir,
    container: Option<&ContainerId>,
) -> io::Result<()> {
    if let Some(container) = container
        && let Err(error) = clean_up(settings, dir, container).await
    {
        // The files are what matters here; what cannot be removed is reported below.
        tracing::warn!(%container, %error, "clean-up failed");
    }
    remove::tree(dir.path()).await
}

async fn clean_up(
    settings: &LocalSettings,
    dir: &ContainerDir,
    container: &ContainerId,
) -> io::Result<()> {
    let mut command = tokio::process::Command::from(command::clean_up(settings, dir, container));
    let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    let output = tokio::select! {
        output = child.wait_with_output() => output?,
        () = sleep(CLEAN_UP_MAX) => return Err(io::ErrorKind::TimedOut.into()),
    };
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
    Err(io::Error::other(format!("{}: {said}", output.status)))
}

/// Its writer appends, so it goes on at the new end.
fn cut_log(path: &Path) {
    let cut = || -> io::Result<()> {
        if path.metadata()?.len() <= LOG_BYTES_MAX {
            return Ok(());
        }
        let kept = log_end(path, LOG_BYTES_KEPT)?;
        let mut file = OpenOptions::new().append(true).open(path)?;
        file.set_len(0)?;
        io::Write::write_all(&mut file, kept.as_bytes())
    };
    if let Err(error) = cut() {
        tracing::warn!(path = %path.display(), %error, "log not cut");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_at_its_limit_and_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let full = usize::try_from(LOG_BYTES_MAX).unwrap();
        std::fs::write(&path, "x".repeat(full)).unwrap();
        cut_log(&path);
        assert_eq!(path.metadata().unwrap().len(), LOG_BYTES_MAX);
        std::fs::write(&path, "x".repeat(full) + "!").unwrap();
        cut_log(&path);
        assert_eq!(path.metadata().unwrap().len(), LOG_BYTES_KEPT as u64);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with('!'));
    }
}
