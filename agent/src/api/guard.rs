//! Round every handler: the token, and panics.

use super::Api;
use crate::jobs::Jobs;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use slotmux_edge::{Refusal, check_token, unpanicked};

/// Asked by load balancers and code generators, which have no token.
const OPEN: [&str; 2] = ["/health", "/openapi.json"];

pub(super) async fn guard<J: Jobs>(
    State(api): State<Api<J>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(token) = &api.settings.token
        && !OPEN.contains(&request.uri().path())
        && let Err(problem) = check_token(token, "agent", request.headers())
    {
        return Refusal(problem).into_response();
    }
    unpanicked(request, next).await.unwrap_or_else(|problem| Refusal(problem).into_response())
}
