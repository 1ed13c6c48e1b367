//! The HTTP door: jobs are posted, followed, and their results fetched.
//!
//! Invariants: a job id means one job, whatever is sent again; what a job came to is kept until it
//! was fetched, within limits, and what had to make room says so; every refusal is a problem with a
//! stable code.

mod document;
mod events;
mod guard;
mod json;
mod ledger;
mod metrics;
mod multipart;
mod name;
mod order;
mod outcome;
mod routes;
mod submit;
#[cfg(test)]
mod tests;
mod upload;

pub use document::openapi;

use crate::{AgentHandle, JobFollower, jobs::Jobs};
use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use ledger::{Ledger, Room};
use slotmux_edge::{no_such_method, no_such_path};
use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Asked of every client, when there is one.
    pub token: Option<Arc<str>>,
    /// A request with the files of its job.
    pub body_bytes_max: usize,
    /// How long a client may take to send one.
    pub body_wait: Duration,
    /// Large bodies that are read at the same time; others wait.
    pub large_bodies_max: usize,
    /// Of all jobs that are not done, what their requests hold.
    pub held_bytes_max: usize,
    /// Jobs that are done and whose results are kept.
    pub results_max: usize,
    pub results_bytes_max: usize,
    /// Ends what would otherwise wait.
    pub closing: CancellationToken,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            token: None,
            body_bytes_max: 64 << 20,
            body_wait: Duration::from_mins(1),
            large_bodies_max: 4,
            held_bytes_max: 1 << 30,
            results_max: 10_000,
            results_bytes_max: 512 << 20,
            closing: CancellationToken::new(),
        }
    }
}

/// Serves `agent`. `adopted` are jobs of an agent before this one.
pub fn router(agent: AgentHandle, settings: ApiSettings, adopted: Vec<JobFollower>) -> Router {
    routed(agent, settings, adopted)
}

/// What handlers share.
pub(crate) struct Api<J>(Arc<Shared<J>>);

impl<J> Clone for Api<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(crate) struct Shared<J> {
    jobs: J,
    settings: ApiSettings,
    ledger: Mutex<Ledger>,
    large_bodies: Semaphore,
}

impl<J> Deref for Api<J> {
    type Target = Shared<J>;

    fn deref(&self) -> &Shared<J> {
        &self.0
    }
}

impl<J> Shared<J> {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Whoever panicked with it in hand has left it as it was before or after a step.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn routed<J: Jobs>(jobs: J, settings: ApiSettings, adopted: Vec<JobFollower>) -> Router {
    let room = Room { results_max: settings.results_max, bytes_max: settings.results_bytes_max };
    let api = Api(Arc::new(Shared {
        jobs,
        ledger: Mutex::new(Ledger::new(room)),
        large_bodies: Semaphore::new(settings.large_bodies_max.max(1)),
        settings,
    }));
    for follower in adopted {
        submit::adopt(&api, follower);
    }
    Router::new()
        .route("/v1/jobs", post(submit::submit).get(routes::list))
        .route("/v1/jobs/{job_id}", get(routes::get).delete(routes::delete))
        .route("/v1/jobs/{job_id}/events", get(events::events))
        .route("/v1/jobs/{job_id}/kill", post(routes::kill))
        .route("/v1/jobs/{job_id}/result", get(routes::result))
        .route("/health", get(routes::health))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(document::document))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}
