//! The life of one container as we follow it: one task for each.
//!
//! Invariants: what the engine told is a reason to look, never the truth itself. An end that nobody
//! asked for is told as soon as it is seen, one that was asked for when nothing is left; the
//! container's name is free again only then, in both cases.

use crate::{
    causes::chain,
    engine::{Ended, Engine, EngineError, State},
    exit, ready,
    seen::Container,
};
use slotmux_backend::{Address, Exit, Fact, Phase, Seen, Teller};
use slotmux_protocol::ContainerId;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

/// Of a log, for the reason of an end.
const LAST_WORDS_BYTES: usize = 4 << 10;

/// A server ends by itself at its time; one that does not is killed this much later.
const EXPIRY_SLACK: Duration = Duration::from_mins(1);

/// For what has ended to be removed, by an engine that is busy or away.
const CLEAR_MAX: Duration = Duration::from_mins(10);

/// How soon an engine that does not answer is asked again.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    Ready(Address),
    /// It ended, and is being removed.
    Ended,
    /// Nothing is left, or why something is.
    Removed(Result<(), String>),
}

/// What others hold of a container that has a keeper.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) seen: Seen,
    /// At the engine.
    pub(crate) id: String,
    pub(crate) stage: watch::Receiver<Stage>,
    /// The grace of the stop that was asked for.
    stop: watch::Sender<Option<Duration>>,
    look: Arc<Notify>,
    /// Whether the engine was asked to kill it, by whomever.
    killed: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    engine: Engine,
    teller: Arc<Teller>,
    container: Container,
    stage: watch::Sender<Stage>,
    stop: watch::Receiver<Option<Duration>>,
    look: Arc<Notify>,
    killed: Arc<AtomicBool>,
}

impl Held {
    pub(crate) fn ask_to_stop(&self, grace: Duration) {
        self.stop.send_replace(Some(grace));
    }

    /// It may have ended.
    pub(crate) fn ask_to_look(&self) {
        self.look.notify_one();
    }

    /// Somebody has asked the engine for it.
    pub(crate) fn was_killed(&self) {
        self.killed.store(true, Ordering::Relaxed);
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

    /// Waits until the engine knows it no more.
    pub(crate) async fn removed(&self) -> Result<(), String> {
        let mut stage = self.stage.clone();
        match stage.wait_for(|stage| matches!(stage, Stage::Removed(_))).await.as_deref() {
            Ok(Stage::Removed(result)) => result.clone(),
            Ok(_) | Err(_) => Err("nobody watches it any more".to_owned()),
        }
    }
}

enum Life {
    /// `None`: the engine does not know it any more.
    Ended(Option<Ended>),
    ToStop(Duration),
}

impl Keeper {
    /// `is_ready`: its server was seen to answer already.
    pub(crate) fn new(
        engine: Engine,
        teller: Arc<Teller>,
        container: Container,
        is_ready: bool,
    ) -> (Self, Held) {
        let marks = &container.marks;
        let seen = Seen {
            container: marks.container.clone(),
            labels: marks.labels.clone(),
            slots: marks.slots,
            phase: Phase::Starting,
        };
        let first = match &container.address {
            Some(address) if is_ready => Stage::Ready(address.clone()),
            Some(_) | None => Stage::Starting,
        };
        let (stage, stage_seen) = watch::channel(first);
        let (stop_asked, stop) = watch::channel(None);
        let look = Arc::new(Notify::new());
        // It may have ended since it was seen.
        look.notify_one();
        let id = container.id.clone();
        let killed = Arc::<AtomicBool>::default();
        let held = Held {
            seen,
            id,
            stage: stage_seen,
            stop: stop_asked,
            look: look.clone(),
            killed: killed.clone(),
        };
        (Self { engine, teller, container, stage, stop, look, killed }, held)
    }

    /// To the end of the container. `forget` is called when its name is free again.
    pub(crate) async fn run(self, forget: impl FnOnce()) {
        let removed = match self.live().await {
            Life::ToStop(grace) => self.end(grace).await,
            Life::Ended(ended) => {
                let exit = self.exit(ended.as_ref()).await;
                self.ended(exit).await;
                self.clear_in_the_end().await
            }
        };
        if let Err(error) = &removed {
            let container = self.name();
            tracing::error!(%container, error = %chain(error), "container not removed");
        }
        forget();
        self.stage.send_replace(Stage::Removed(removed.map_err(|error| chain(&error))));
    }

    fn name(&self) -> &ContainerId {
        &self.container.marks.container
    }

    async fn live(&self) -> Life {
        let mut asked = std::pin::pin!(asked(self.stop.clone()));
        // Also of one that was ready when it was adopted: news may be repeated, never missed.
        let mut ready = std::pin::pin!(self.ready());
        let mut ready_told = false;
        let mut expired = std::pin::pin!(self.expired());
        loop {
            tokio::select! {
                biased;
                grace = &mut asked => return Life::ToStop(grace),
                () = self.look.notified() => {
                    // While the engine is silent it can still be asked to stop.
                    tokio::select! {
                        biased;
                        grace = &mut asked => return Life::ToStop(grace),
                        look = self.look() => if let Some(ended) = look {
                            return ended;
                        },
                    }
                }
                address = &mut ready, if !ready_told => {
                    ready_told = true;
                    self.became_ready(address).await;
                }
                // It ends by this, and that is heard like any other end.
                () = &mut expired => {}
            }
        }
    }

    async fn ready(&self) -> Address {
        let Some(address) = &self.container.address else { return std::future::pending().await };
        ready::wait(&address.authority).await;
        address.clone()
    }

    async fn became_ready(&self, address: Address) {
        let container = self.name().clone();
        tracing::info!(%container, address = address.authority, "container is ready");
        self.stage.send_replace(Stage::Ready(address.clone()));
        self.teller.tell(Fact::Ready { container, address }).await;
    }

    /// `None`: it lives.
    async fn look(&self) -> Option<Life> {
        let mut apart = ASK_AGAIN_MIN;
        loop {
            match self.engine.find(&self.container.id).await {
                Ok(None) => return Some(Life::Ended(None)),
                Ok(Some(found)) => match found.state {
                    State::Running => return None,
                    State::Ended(ended) => return Some(Life::Ended(Some(ended))),
                    // Somebody else removes it, or a start is under way.
                    State::Leaving | State::NotStarted => {}
                },
                Err(error) => {
                    let container = self.name();
                    tracing::warn!(%container, error = %chain(&error), "container not seen");
                }
            }
            sleep(apart).await;
            apart = (apart * 2).min(ASK_AGAIN_MAX);
        }
    }

    /// Ends what has outlived its time, and never returns.
    async fn expired(&self) {
        let left = self.container.marks.expires.duration_since(SystemTime::now());
        let left = left.unwrap_or_default().saturating_add(EXPIRY_SLACK);
        let Some(then) = Instant::now().checked_add(left) else {
            return std::future::pending().await;
        };
        sleep_until(then).await;
        loop {
            let container = self.name();
            match self.engine.kill(&self.container.id).await {
                Ok(()) => tracing::warn!(%container, "container outlived its time and was killed"),
                Err(error) => {
                    tracing::warn!(%container, error = %chain(&error), "container not killed");
                }
            }
            self.look.notify_one();
            sleep(EXPIRY_SLACK).await;
        }
    }

    /// Asks for its end, then forces it.
    async fn end(&self, grace: Duration) -> Result<(), EngineError> {
        if !grace.is_zero()
            && let Err(error) = self.engine.stop(&self.container.id, grace).await
            && !error.is_not_found()
        {
            let container = self.name();
            tracing::warn!(%container, error = %chain(&error), "container did not stop when asked");
        }
        // Unless this is known to be done, it is not gone.
        self.clear().await?;
        self.ended(exit::of_asked()).await;
        Ok(())
    }

    async fn clear(&self) -> Result<(), EngineError> {
        let was_there = self.engine.remove(&self.container.id).await?;
        match &self.container.volume {
            // Whoever removed it may have left what was in it.
            Some(volume) if !was_there => self.engine.remove_volume(volume).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Nobody waits for it yet, and nobody else would do it.
    async fn clear_in_the_end(&self) -> Result<(), EngineError> {
        let deadline = Instant::now() + CLEAR_MAX;
        let mut apart = ASK_AGAIN_MIN;
        let mut asked = std::pin::pin!(asked(self.stop.clone()));
        loop {
            let error = match self.clear().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::select! {
                // Whoever waits now hears at once that it is still there.
                _grace = &mut asked => return Err(error),
                () = sleep(apart) => apart = (apart * 2).min(ASK_AGAIN_MAX),
            }
        }
    }

    async fn ended(&self, exit: Exit) {
        let container = self.name().clone();
        tracing::info!(%container, reason = exit.reason, "container ended");
        self.stage.send_replace(Stage::Ended);
        self.teller.tell(Fact::Gone { container, exit }).await;
    }

    async fn exit(&self, ended: Option<&Ended>) -> Exit {
        let log = match ended {
            Some(_) => self.engine.log_end(&self.container.id, LAST_WORDS_BYTES).await,
            None => Ok(String::new()),
        };
        let log = log.unwrap_or_default();
        let unasked = self.container.has_memory_limit && !self.killed.load(Ordering::Relaxed);
        match ended {
            Some(ended) if unasked && exit::may_be_memory(ended) => {
                exit::presumed_out_of_memory(&log)
            }
            _ => exit::of_unasked(ended, &log),
        }
    }
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
