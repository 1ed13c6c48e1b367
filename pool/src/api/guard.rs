//! Round every handler: the token, panics, and the words in which each surface refuses.

use super::{Api, atropos};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use slotmux_edge::{Refusal, check_token, unpanicked};
use slotmux_protocol::Problem;

/// Asked by load balancers and code generators, which have no token.
const OPEN: [&str; 2] = ["/health", "/openapi.json"];

pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let refuse = refusal_for(path);
    if let Some(token) = &api.settings.token
        && !OPEN.contains(&path)
        && let Err(problem) = check_token(token, "pool", request.headers())
    {
        return refuse(problem);
    }
    unpanicked(request, next).await.unwrap_or_else(refuse)
}

/// Each surface refuses in its own words.
fn refusal_for(path: &str) -> fn(Problem) -> Response {
    match path {
        "/execute" | "/release" | "/status" => atropos::refuse,
        _ => |problem| Refusal(problem).into_response(),
    }
}
