//! How the pool is.

use super::Api;
use axum::{extract::State, response::Response};
use serde::Serialize;
use slotmux_edge::{Answer, ok};
use slotmux_protocol::v1::Status;

/// How the pool is: containers, slots, waiting clients, totals.
#[utoipa::path(
    get, path = "/v1/status", tag = "pool",
    responses((status = 200, description = "The state of each profile", body = Status)),
)]
pub(super) async fn status(State(api): State<Api>) -> Answer {
    Ok(ok(&api.pool.status().await?))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether this process answers. Needs no token.
#[utoipa::path(
    get, path = "/health", tag = "pool", security(()),
    responses((status = 200, description = "It does", body = Health)),
)]
pub(super) async fn health() -> Response {
    ok(&Health { status: "ok" })
}
