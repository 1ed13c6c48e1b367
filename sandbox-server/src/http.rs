//! The HTTP surface: the atropos wire, the v1 surface, and the Link.

mod atropos;
mod body;
mod v1;

use crate::{link, server::Server};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request as HttpRequest, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Json, Response},
    routing::{get, post},
};
use body::refuse;
use serde_json::{Value, json};
use slotmux_protocol::{Code, Isolation, Problem, v1::SlotPhase};
use std::sync::Arc;
use subtle::ConstantTimeEq;

pub(crate) fn router(server: Arc<Server>) -> Router {
    let limit = server.settings.limits.body_bytes_max;
    Router::new()
        .route("/execute", post(atropos::execute))
        .route("/batch", post(atropos::batch))
        .route("/reset", post(atropos::reset))
        .route("/slots", get(slots))
        .route("/v1/link", get(link::upgrade))
        .merge(v1::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&server), authorise))
        .route("/health", get(health))
        .fallback(async |uri: Uri| say_no(&uri, Code::NotFound, "no such path"))
        .method_not_allowed_fallback(async |uri: Uri| {
            say_no(&uri, Code::MethodNotAllowed, "this path takes another method")
        })
        .layer(DefaultBodyLimit::max(limit))
        .with_state(server)
}

async fn authorise(
    State(server): State<Arc<Server>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let Some(token) = &server.settings.token else { return next.run(request).await };
    match bearer(request.headers()) {
        None => say_no(request.uri(), Code::Unauthenticated, "a bearer token is needed"),
        Some(given) if bool::from(given.as_bytes().ct_eq(token.as_bytes())) => {
            next.run(request).await
        }
        Some(_) => say_no(request.uri(), Code::Forbidden, "the token is not the right one"),
    }
}

/// In the words of the surface that was called.
fn say_no(uri: &Uri, code: Code, detail: &str) -> Response {
    if uri.path().starts_with("/v1/") {
        return v1::Refusal(Problem::new(code, detail)).into_response();
    }
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refuse(status, detail)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

async fn health(State(server): State<Arc<Server>>) -> Json<Value> {
    let views: Vec<_> = server.slots.iter().map(|slot| slot.view()).collect();
    let executing = views.iter().filter(|it| it.queued > 0).count();
    let available = views.iter().filter(|it| it.phase != SlotPhase::Dirty && it.queued == 0).count();
    let settings = &server.settings;
    let cgroups = &server.ground.cgroups;
    Json(json!({
        "status": if server.draining.is_cancelled() { "draining" } else { "ok" },
        "slots": views.len(),
        "available": available,
        "executing": executing,
        "data_dir": settings.data_dir,
        "stateful_dir": null,
        "bwrap_available": server.isolation > Isolation::None,
        "isolation": server.isolation,
        "network": settings.network,
        "container": settings.container,
        "version": env!("CARGO_PKG_VERSION"),
        "shell": crate::init::find_shell(),
        "limits": settings.slot_limits,
        "limits_by": {
            "memory": cgroups.memory_by().unwrap_or("supervision"),
            "processes": cgroups.pids_by().map_or("rlimit".to_owned(), |it| format!("rlimit, {it}")),
            "open_files": "rlimit",
            "file_size": "rlimit",
        },
    }))
}

async fn slots(State(server): State<Arc<Server>>) -> Json<Value> {
    let dir = server.settings.data_dir.join("slots");
    let slots: Vec<_> = server
        .slots
        .iter()
        .map(|slot| {
            let view = slot.view();
            json!({
                "slot_id": slot.index.to_string(),
                "state": if view.queued > 0 { "executing" } else { "available" },
                "workspace_dir": dir.join(slot.index.to_string()).join("workspace"),
                "current_execution_id": view.executing,
                "queued": view.queued,
            })
        })
        .collect();
    Json(json!({ "slots": slots }))
}
