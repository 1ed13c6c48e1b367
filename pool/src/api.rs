//! The HTTP edge: the v1 API and the "tool executor" that atropos clients speak.
//!
//! Invariants: a call that runs a tool never goes through the actor; every refusal is a
//! [`Problem`] with a stable code (on the atropos paths in that wire's own words); a handler that
//! panics costs its own request only.

mod atropos;
mod batch;
mod body;
mod document;
mod events;
mod execute;
mod guard;
mod leases;
mod live;
mod status;
#[cfg(test)]
mod tests;
mod tools;

pub use document::openapi;
pub use slotmux_edge::{ServeSettings, serve};

use crate::routes::Routes;
use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use futures_util::future::BoxFuture;
use slotmux_edge::{no_such_method, no_such_path};
use slotmux_protocol::{
    LeaseId, Limits, Problem, TrajectoryId,
    v1::{AcquireRequest, Event, Lease, Seconds, Status},
};
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// What the HTTP API needs of a pool.
pub trait Leases: Send + Sync + 'static {
    /// As many leases as were asked for, all or none. Dropping the future takes the wish back.
    fn acquire(&self, request: AcquireRequest) -> BoxFuture<'_, Result<Vec<Lease>, Problem>>;

    fn release(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Problem>>;

    /// Releases whatever the trajectory holds, which may be nothing.
    fn release_trajectory<'a>(
        &'a self,
        trajectory: &'a TrajectoryId,
    ) -> BoxFuture<'a, Result<(), Problem>>;

    fn renew(&self, lease: LeaseId, ttl: Option<Seconds>) -> BoxFuture<'_, Result<Lease, Problem>>;

    fn lease(&self, lease: LeaseId) -> BoxFuture<'_, Result<Lease, Problem>>;

    fn status(&self) -> BoxFuture<'_, Result<Status, Problem>>;

    /// Events from now on.
    fn events(&self) -> broadcast::Receiver<Event>;

    fn routes(&self) -> &Routes;
}

#[derive(Clone)]
pub struct ApiSettings {
    /// Asked of every client, when there is one.
    pub token: Option<Arc<str>>,
    pub limits: Limits,
    /// How long an atropos call waits for its trajectory's slot.
    pub atropos_wait: Duration,
    /// How long a client may take to send a body.
    pub body_wait: Duration,
    /// Ends the streams that would otherwise never end.
    pub closing: CancellationToken,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            token: None,
            limits: Limits::default(),
            atropos_wait: Duration::from_secs(30),
            body_wait: Duration::from_mins(1),
            closing: CancellationToken::new(),
        }
    }
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

pub(crate) struct Shared {
    pool: Arc<dyn Leases>,
    settings: ApiSettings,
    executions: execute::Executions,
    atropos: atropos::Trajectories,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

pub fn router(pool: impl Leases, settings: ApiSettings) -> Router {
    let api = Api(Arc::new(Shared {
        pool: Arc::new(pool),
        settings,
        executions: execute::Executions::new(),
        atropos: atropos::Trajectories::default(),
    }));
    Router::new()
        .route("/v1/leases", post(leases::acquire))
        .route("/v1/leases/{lease_id}", get(leases::get).delete(leases::release))
        .route("/v1/leases/{lease_id}/renew", post(leases::renew))
        .route("/v1/leases/{lease_id}/execute", post(execute::execute))
        .route("/v1/batch", post(batch::batch))
        .route("/v1/status", get(status::status))
        .route("/v1/events", get(events::events))
        .route("/v1/tools", get(tools::tools))
        .route("/health", get(status::health))
        .route("/openapi.json", get(document::document))
        .route("/execute", post(atropos::execute))
        .route("/release", post(atropos::release))
        .route("/status", get(atropos::status))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}
