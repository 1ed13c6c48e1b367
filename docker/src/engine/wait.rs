//! Waiting for the end of a container.
//!
//! Invariant: an end is not missed, whatever becomes of the connection on which it was to be told:
//! every now and then the container is looked at.

use super::{Ended, Engine, EngineError, Fault, State, error::Doing};
use bollard::{errors::Error, query_parameters::WaitContainerOptions};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Soon first: one that ended before the engine heard that we wait is found by this.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_mins(1);

/// After no answer.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(50);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It has run and ended. One that was not started yet is waited for.
    Ended,
    /// The engine does not know it any more.
    Removed,
}

impl Engine {
    /// `None`: it is gone, and nobody knows how it ended.
    ///
    /// Waits as long as it takes, also for an engine that goes away meanwhile.
    ///
    /// # Errors
    ///
    /// If the engine does not answer the first question, or refuses one.
    pub async fn wait(&self, id: &str, until: Until) -> Result<Option<Ended>, EngineError> {
        let mut last = None;
        let mut look = Ok::<_, EngineError>(self.find(id).await?);
        let mut apart = ASK_AGAIN_MIN;
        loop {
            match look {
                Ok(None) => return Ok(last),
                Ok(Some(found)) => {
                    if let State::Ended(ended) = found.state {
                        last = Some(ended);
                    }
                    if until == Until::Ended && last.is_some() {
                        return Ok(last);
                    }
                }
                Err(error) if error.is_cut() => {
                    tracing::debug!(%error, "waiting for a container of an engine that is away");
                    sleep(apart).await;
                    apart = (apart * 2).min(ASK_AGAIN_MAX);
                    look = self.find(id).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match self.told_end(id, until).await {
                Ok(told) => {
                    apart = ASK_AGAIN_MIN;
                    last = last.or(told);
                }
                Err(error) if error.is_not_found() || error.is_cut() => {
                    sleep(apart).await;
                    apart = (apart * 2).min(ASK_AGAIN_MAX);
                }
                Err(error) => return Err(error),
            }
            look = self.find(id).await;
        }
    }

    /// As the engine tells it, or until a look shows that there is no need to wait. `None`: look.
    async fn told_end(&self, id: &str, until: Until) -> Result<Option<Ended>, EngineError> {
        let condition = match until {
            // Of one that was not started, the engine would say at once that it does not run.
            Until::Ended => "next-exit",
            Until::Removed => "removed",
        };
        let options = WaitContainerOptions { condition: condition.to_owned() };
        // The answer begins at once, and goes on when it is over.
        let docker = self.docker().await?;
        let mut answer = docker.wait_container(id, Some(options)).boxed();
        let mut patience = LOOK_FIRST;
        loop {
            if let Ok(told) = timeout(patience, answer.next()).await {
                return match told {
                    Some(Ok(told)) => Ok(Some(ended(told.status_code, String::new()))),
                    Some(Err(Error::DockerContainerWaitError { error, code })) => {
                        Ok(Some(ended(code, error)))
                    }
                    Some(Err(error)) => Err(error).doing(DOING),
                    None => Ok(None),
                };
            }
            patience = (patience * 2).min(LOOK_MAX);
            match self.find(id).await? {
                None => return Ok(None),
                Some(found) => match (until, found.state) {
                    (Until::Ended, State::Ended(_)) => return Ok(None),
                    (Until::Ended | Until::Removed, _) => {}
                },
            }
        }
    }
}

const DOING: &str = "wait for the container's end";

fn ended(code: i64, error: String) -> Ended {
    Ended { code, out_of_memory: false, error }
}

impl EngineError {
    /// The same may be answered when the engine is back.
    fn is_cut(&self) -> bool {
        matches!(self.fault, Fault::Down(_) | Fault::Silent | Fault::Broken(_))
    }
}
