//! The HTTP surface: the atropos wire, the v1 surface, and the Link.

mod artifacts;
mod atropos;
mod body;
mod v1;

use crate::{
    access::{self, Access, Given},
    limited::LimitedBy,
    link,
    server::Server,
    slot,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Request as HttpRequest, State},
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
        .route("/v1/slots/{slot}/token", post(slot_token))
        .merge(artifacts::routes())
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
    mut request: HttpRequest,
    next: Next,
) -> Response {
    let access = access_of(&server, request.headers());
    let permitted = access.and_then(|access| {
        access.permits(request.method(), request.uri().path())?;
        Ok(access)
    });
    match permitted {
        Ok(access) => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(problem) => say_no(request.uri(), problem.code, &problem.detail),
    }
}

fn access_of(server: &Server, headers: &HeaderMap) -> Result<Access, Problem> {
    let main = server.settings.token.as_deref();
    let Some(given) = bearer(headers) else {
        return match main {
            Some(_) => Err(Problem::new(Code::Unauthenticated, "a bearer token is needed")),
            None => Ok(Access::All),
        };
    };
    if main.is_some_and(|main| bool::from(given.as_bytes().ct_eq(main.as_bytes()))) {
        return Ok(Access::All);
    }
    match server.tokens.read(given) {
        Given::Slot(index, stay) => match server.slot(index) {
            Some(slot) if !slot.is_over(stay) => Ok(Access::Slot(index, stay)),
            _ => Err(slot::over()),
        },
        Given::Forged => Err(Problem::new(
            Code::Forbidden,
            "the token is none of this server's; tokens for slots end with it",
        )),
        Given::Other if main.is_some() => {
            Err(Problem::new(Code::Forbidden, "the token is not the right one"))
        }
        Given::Other => Ok(Access::All),
    }
}

async fn slot_token(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Response, v1::Refusal> {
    let slot = v1::find(&server, &name)?;
    Ok(access::grant(&server.tokens, slot)?)
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
    let available =
        views.iter().filter(|it| it.phase != SlotPhase::Dirty && it.queued == 0).count();
    let settings = &server.settings;
    let (root, forks) = v1::snapshots::report(&server);
    Json(json!({
        "status": if server.draining.is_cancelled() { "draining" } else { "ok" },
        "slots": views.len(),
        "available": available,
        "executing": executing,
        "data_dir": settings.data_dir,
        "stateful_dir": null,
        "bwrap_available": server.isolation > Isolation::None,
        "isolation": server.isolation,
        "root": root,
        "image": server.root.image_by(),
        "forks": forks,
        "network": settings.network,
        "container": settings.container,
        "version": env!("CARGO_PKG_VERSION"),
        "shell": crate::init::find_shell(),
        "limits": settings.slot_limits,
        "limits_by": LimitedBy::new(&server.ground.cgroups, Some(server.isolation), server.root),
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
