//! Whether containers of a profile get namespaces: found out by one that tries.
//!
//! Invariant: who asks for the best never gets a worse rung because something else went wrong.

use super::{Shared, launch::LaunchError};
use crate::{
    engine::State,
    exit, ready,
    seen::authority,
    settings::{Inject, User, Walls},
};
use slotmux_backend::{LaunchSpec, last_lines};
use slotmux_protocol::{Isolation, ProfileName, Root};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// To answer or to refuse. Both take a fraction of a second.
const TRIAL_MAX: Duration = Duration::from_mins(1);
const LOOKS_APART: Duration = Duration::from_millis(20);
const LAST_WORDS_BYTES: usize = 2 << 10;

/// How long a refusal counts: the machine may have been out of something.
const REFUSED_FOR: Duration = Duration::from_mins(5);

/// What was found out, of each profile.
#[derive(Debug, Default)]
pub(super) struct Tried(Mutex<HashMap<ProfileName, Arc<Trial>>>);

/// Held by whoever tries, so that it is done once for all who wait.
type Trial = tokio::sync::Mutex<Option<Found>>;

#[derive(Debug, Clone, Copy)]
struct Found {
    opens: bool,
    when: Instant,
}

impl Tried {
    fn of(&self, profile: &ProfileName) -> Arc<Trial> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(profile.clone()).or_default().clone()
    }
}

impl Shared {
    /// Whether the container is to be one that permits namespaces.
    pub(super) async fn opens(
        &self,
        spec: &LaunchSpec,
        inject: Inject,
    ) -> Result<bool, LaunchError> {
        let container = self.settings.of_profile(&spec.labels.profile);
        match container.walls {
            // The whole image as root is had in no other way, and then by no other rung: where they
            // cannot be made, the server does not serve.
            _ if spec.root == Root::Image => return Ok(true),
            Walls::Namespaces => return Ok(true),
            Walls::Ordinary => return Ok(false),
            // It wants to be root, and in there nobody may.
            Walls::Best if container.user.is_some_and(|it| it.uid == User::ROOT.uid) => {
                return Ok(false);
            }
            Walls::Best => {}
        }
        let trial = self.tried.of(&spec.labels.profile);
        let mut found = trial.lock().await;
        if let Some(Found { opens, when }) = *found
            && (opens || when.elapsed() < REFUSED_FOR)
        {
            return Ok(opens);
        }
        let opens = self.try_namespaces(spec, inject).await?;
        *found = Some(Found { opens, when: Instant::now() });
        Ok(opens)
    }

    async fn try_namespaces(&self, spec: &LaunchSpec, inject: Inject) -> Result<bool, LaunchError> {
        let spec = Self::look_spec(spec)?;
        let choice = self.choose(&spec, true, inject)?;
        let id = match self.create_for_a_look(&spec, choice).await {
            // Podman takes a filter only from its own machine's files.
            Err(LaunchError::Engine(error)) if error.names("opening seccomp profile failed") => {
                let profile = spec.labels.profile;
                tracing::warn!(%profile, "the engine takes no filter of ours: ordinary ones then");
                return Ok(false);
            }
            other => other?,
        };
        let outcome = async {
            self.begin(&spec, &id, choice).await?;
            let outcome = timeout(TRIAL_MAX, self.answers(&id, &spec.labels.profile)).await;
            outcome.unwrap_or_else(|elapsed| Err(LaunchError::Untried(elapsed.to_string())))
        };
        let outcome = outcome.await;
        let removed = self.engine.remove(&id).await;
        let works = outcome?;
        removed?;
        let profile = spec.labels.profile;
        if let Err(said) = &works {
            tracing::warn!(%profile, said, "no namespaces in containers: ordinary ones then");
        }
        tracing::debug!(%profile, works = works.is_ok(), "tried");
        Ok(works.is_ok())
    }

    /// `Err` in there: why it does not.
    async fn answers(
        &self,
        id: &str,
        profile: &ProfileName,
    ) -> Result<Result<(), String>, LaunchError> {
        loop {
            let found = self.engine.find(id).await?.ok_or(LaunchError::Lost)?;
            if let State::Ended(ended) = &found.state {
                let log = self.engine.log_end(id, LAST_WORDS_BYTES).await?;
                return match u8::try_from(ended.code) {
                    Ok(Isolation::REFUSED) => Ok(Err(last_lines(&log))),
                    _ => Err(LaunchError::Untried(exit::of_unasked(Some(ended), &log).reason)),
                };
            }
            let authority = authority(&self.settings.reach, &found);
            let network = || self.settings.of_profile(profile).network.clone();
            let authority = authority.ok_or_else(|| LaunchError::NoAddress(network()))?;
            if ready::look(&authority).await {
                return Ok(Ok(()));
            }
            tokio::time::sleep(LOOKS_APART).await;
        }
    }
}
