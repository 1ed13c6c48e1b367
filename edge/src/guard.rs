//! Round every handler: the token, panics, and requests that no handler is for.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, Uri, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use futures_util::FutureExt;
use slotmux_protocol::{Code, Problem};
use std::{any::Any, panic::AssertUnwindSafe};
use subtle::ConstantTimeEq;

use crate::Refusal;

/// Runs the handler. One that panics costs its own request only.
pub async fn unpanicked(request: Request, next: Next) -> Result<Response, Problem> {
    // Nothing of a request outlives it half changed: what handlers share is behind its own locks.
    AssertUnwindSafe(next.run(request)).catch_unwind().await.map_err(|panic| {
        tracing::error!(panic = said(&*panic), "a handler panicked");
        Problem::new(Code::Internal, "this is a fault of ours; the log says more")
    })
}

pub async fn no_such_path(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal(Problem::new(
        Code::NotFound,
        format!("nothing is served at `{path}`; see /openapi.json"),
    ))
}

pub async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal(Problem::new(
        Code::MethodNotAllowed,
        format!("`{path}` does not take {method}; the `allow` header says what it takes"),
    ))
}

/// Whether a request carries the bearer token of `whose`.
pub fn check_token(token: &str, whose: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(sent) = headers.get(AUTHORIZATION) else {
        return Err(Problem::new(
            Code::Unauthenticated,
            format!("send the {whose}'s token as `Authorization: Bearer TOKEN`"),
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
        Err(Problem::new(Code::Forbidden, format!("the token is not the one of this {whose}")))
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
