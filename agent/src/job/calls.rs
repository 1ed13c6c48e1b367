//! Calls to the engine that end in something that is known.
//!
//! Invariant: where a call has no answer, it is looked up what became of it. Whoever waits for an
//! engine that is away asks less and less often, up to a bound.

use super::core::{End, NotMade};
use bollard::models::ContainerCreateBody;
use slotmux_docker::{Engine, EngineError, Fault, Found, State};
use std::{error::Error, time::Duration};
use tokio::time::{Instant, sleep};

const APART_MIN: Duration = Duration::from_millis(50);
/// A look at a socket that is not there costs little, and jobs wait for it.
const APART_MAX: Duration = Duration::from_millis(500);

/// A container is not made any more when its engine was away this long.
const AWAY_MAX: Duration = Duration::from_mins(1);

struct Patience {
    apart: Duration,
    until: Instant,
}

impl Patience {
    fn new(patience: Duration) -> Self {
        Self { apart: APART_MIN, until: Instant::now() + patience }
    }

    /// Whether there is any left.
    async fn wait(&mut self) -> bool {
        if Instant::now() + self.apart > self.until {
            return false;
        }
        sleep(self.apart).await;
        self.apart = (self.apart * 2).min(APART_MAX);
        true
    }
}

pub(crate) async fn create(
    engine: &Engine,
    name: &str,
    body: ContainerCreateBody,
) -> Result<String, NotMade> {
    let mut patience = Patience::new(AWAY_MAX);
    loop {
        let error = match engine.create(name, body.clone()).await {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        let in_doubt = !matches!(error.fault, Fault::Said { status: 400..500, .. });
        let is_over = matches!(error.fault, Fault::Said { .. } | Fault::Address(_));
        if is_over && !error.is_conflict() {
            return Err(NotMade { why: chain(&error), in_doubt });
        }
        // It may have been made: the name is nobody else's.
        if let Ok(Some(found)) = engine.find(name).await {
            return Ok(found.id);
        }
        if !patience.wait().await {
            return Err(NotMade { why: chain(&error), in_doubt });
        }
    }
}

pub(crate) async fn start(engine: &Engine, id: &str) -> Result<(), String> {
    let mut patience = Patience::new(AWAY_MAX);
    loop {
        let error = match engine.start(id).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error.fault, Fault::Said { .. } | Fault::Address(_)) {
            return Err(chain(&error));
        }
        match engine.find(id).await {
            Ok(None) => return Err(chain(&error)),
            Ok(Some(Found { state: State::Running | State::Ended(_), .. })) => return Ok(()),
            Ok(Some(_)) | Err(_) => {}
        }
        if !patience.wait().await {
            return Err(chain(&error));
        }
    }
}

/// `None`: it runs. Waits for an engine that is away, as long as it takes, and says so once.
pub(crate) async fn look(engine: &Engine, id: &str, is_away: impl AsyncFnOnce()) -> Option<End> {
    let mut is_away = Some(is_away);
    let mut patience = Patience::new(Duration::from_hours(24 * 365));
    loop {
        match engine.find(id).await {
            Ok(None) => return Some(End::Vanished),
            Ok(Some(found)) => match found.state {
                State::Running | State::NotStarted => return None,
                State::Ended(ended) => {
                    let (code, out_of_memory) = (ended.code, ended.out_of_memory);
                    return Some(End::Exited { code, out_of_memory });
                }
                // Somebody removes it at this moment.
                State::Leaving => {}
            },
            Err(error) => {
                tracing::debug!(error = chain(&error), "container not seen");
                if let Some(is_away) = is_away.take() {
                    is_away().await;
                }
            }
        }
        if !patience.wait().await {
            return Some(End::Vanished);
        }
    }
}

/// By name or id. Returns when it is gone.
pub(crate) async fn remove(engine: &Engine, id: &str) {
    let mut patience = Patience::new(Duration::from_hours(24 * 365));
    let mut is_told = false;
    loop {
        match engine.remove(id).await {
            Ok(_) => return,
            Err(error) if is_told => tracing::debug!(error = chain(&error), "not removed"),
            Err(error) => {
                is_told = true;
                tracing::warn!(container = id, error = chain(&error), "container not removed yet");
            }
        }
        if !patience.wait().await {
            return;
        }
    }
}

/// With what it came of.
pub(crate) fn chain(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
