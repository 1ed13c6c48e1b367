//! Round every handler: the token, panics, and requests that no handler is for.

use super::{Api, atropos};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use slotmux_edge::Refusal;
use slotmux_protocol::{Code, Problem};
use std::{any::Any, panic::AssertUnwindSafe};
use subtle::ConstantTimeEq;

/// Asked by load balancers and code generators, which have no token.
const OPEN: [&str; 2] = ["/health", "/openapi.json"];

pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let refuse = refusal_for(path);
    if let Some(token) = &api.settings.token
        && !OPEN.contains(&path)
        && let Err(problem) = check(token, request.headers())
    {
        return refuse(problem);
    }
    // Nothing of a request outlives it half changed: what handlers share is behind its own locks.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            tracing::error!(panic = said(&*panic), "a handler panicked");
            refuse(Problem::new(Code::Internal, "this is a fault of ours; the log says more"))
        }
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal(Problem::new(
        Code::NotFound,
        format!("nothing is served at `{path}`; see /openapi.json"),
    ))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal(Problem::new(
        Code::MethodNotAllowed,
        format!("`{path}` does not take {method}; the `allow` header says what it takes"),
    ))
}

/// Each surface refuses in its own words.
fn refusal_for(path: &str) -> fn(Problem) -> Response {
    match path {
        "/execute" | "/release" | "/status" => atropos::refuse,
        _ => |problem| Refusal(problem).into_response(),
    }
}

fn check(token: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(sent) = headers.get(AUTHORIZATION) else {
        return Err(Problem::new(
            Code::Unauthenticated,
            "send the pool's token as `Authorization: Bearer TOKEN`",
        ));
    };
    let sent = sent.as_bytes();
    let bearer = match sent.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
        _ => {
            return Err(Problem::new(
                Code::Unauthenticated,
                "the `authorization` header is not `Bearer TOKEN`",
            ));
        }
    };
    if bool::from(bearer.ct_eq(token.as_bytes())) {
        Ok(())
    } else {
        Err(Problem::new(Code::Forbidden, "the token is not the one of this pool"))
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
