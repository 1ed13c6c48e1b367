//! Workspaces saved, moved, and given to other slots.

use super::{body::Json, find};
use crate::{
    access::Access,
    http::body::BODY_WAIT,
    isolate::RootKind,
    layers::probe::Sharing,
    server::Server,
    slot::{Running, Scope},
    snapshots::{SnapshotError, SnapshotId},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing::{get, post},
};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use slotmux_edge::{Answer, ok};
use slotmux_protocol::{Code, Problem, SlotIndex};
use std::sync::Arc;
use tokio::{task::spawn_blocking, time::timeout};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/v1/slots/{slot}/snapshot", post(save))
        .route("/v1/slots/{slot}/restore", post(restore))
        .route("/v1/slots/{slot}/fork", post(fork))
        .route("/v1/snapshots", get(list))
        .route("/v1/snapshots/{id}", get(download).put(upload).delete(delete))
}

/// For `/health`.
pub(in crate::http) fn report(server: &Server) -> (&'static str, serde_json::Value) {
    let root = match server.root {
        RootKind::Minimal => "minimal",
        RootKind::Image(_) | RootKind::Parts(_) => "image",
    };
    let forks = match &server.sharing {
        Sharing::Overlay => json!({ "by": "overlay" }),
        Sharing::Copy(why) => json!({ "by": "copy", "why": why }),
    };
    (root, forks)
}

async fn save(
    State(server): State<Arc<Server>>,
    access: Access,
    Path(slot): Path<String>,
) -> Answer {
    taking(&server)?;
    let slot = find(&server, &slot)?;
    let scope = access.scope(slot.index)?;
    Ok(ok(&server.snapshot(slot, scope).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    snapshot_id: String,
}

async fn restore(
    State(server): State<Arc<Server>>,
    access: Access,
    Path(slot): Path<String>,
    Json(request): Json<Restore>,
) -> Answer {
    taking(&server)?;
    let slot = find(&server, &slot)?;
    for_all(access, slot.index)?;
    let id = SnapshotId::parse(&request.snapshot_id)?;
    Ok(ok(&server.restore(slot, id).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fork {
    to: Vec<String>,
    /// End what runs in the slot; without it, that is a refusal.
    #[serde(default)]
    stop: bool,
}

async fn fork(
    State(server): State<Arc<Server>>,
    access: Access,
    Path(slot): Path<String>,
    Json(request): Json<Fork>,
) -> Answer {
    taking(&server)?;
    let source = find(&server, &slot)?.index;
    for_all(access, source)?;
    let targets = request.to.iter().map(|name| Ok(find(&server, name)?.index));
    let targets = targets.collect::<Result<Vec<_>, Problem>>().map_err(|it| it.at("to"))?;
    let running = if request.stop { Running::End } else { Running::Refuse };
    let filled = server.fork(source, &targets, running).await?;
    let slots: Vec<_> = filled
        .into_iter()
        .map(|it| match it.refused {
            None => json!({ "slot": it.slot }),
            Some(problem) => json!({ "slot": it.slot, "problem": problem }),
        })
        .collect();
    let (_, forks) = report(&server);
    Ok(ok(&json!({ "slots": slots, "by": forks["by"] })))
}

async fn list(State(server): State<Arc<Server>>) -> Answer {
    Ok(ok(&json!({ "snapshots": server.ground.snapshots.list() })))
}

async fn download(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer {
    let id = SnapshotId::parse(&id)?;
    let store = Arc::clone(&server.ground.snapshots);
    let stored = blocking(move || store.stored(&id)).await?;
    let length = stored.bytes();
    let headers = [
        (header::CONTENT_TYPE, "application/zstd".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(stored.pieces())).into_response())
}

/// The body is what another container gave for this id. It is kept if it is that.
async fn upload(State(server): State<Arc<Server>>, Path(id): Path<String>, body: Body) -> Answer {
    taking(&server)?;
    let id = SnapshotId::parse(&id)?;
    let store = Arc::clone(&server.ground.snapshots);
    let mut receiving = blocking(move || store.receive()).await?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = next(&mut pieces).await? {
        receiving = blocking(move || receiving.write(&piece).map(|()| receiving)).await?;
    }
    Ok(ok(&blocking(move || receiving.keep_as(id)).await?))
}

async fn next(pieces: &mut axum::body::BodyDataStream) -> Result<Option<Bytes>, Problem> {
    let late = |_| {
        let detail = format!("nothing of the body came for {} s", BODY_WAIT.as_secs());
        Problem::new(Code::Malformed, detail)
    };
    let piece = timeout(BODY_WAIT, pieces.next()).await.map_err(late)?;
    piece.transpose().map_err(|error| Problem::new(Code::Malformed, error.to_string()))
}

async fn delete(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer {
    let id = SnapshotId::parse(&id)?;
    let store = Arc::clone(&server.ground.snapshots);
    blocking(move || store.delete(&id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, Problem> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(|_panic| Problem::new(Code::Internal, "it failed; see the log"))??)
}

fn taking(server: &Server) -> Result<(), Problem> {
    if server.draining.is_cancelled() {
        return Err(Problem::new(Code::ShuttingDown, "the server is shutting down"));
    }
    Ok(())
}

/// Not for tokens of single slots, which the middleware refuses already.
fn for_all(access: Access, slot: SlotIndex) -> Result<(), Problem> {
    match access.scope(slot)? {
        Scope::Standalone => Ok(()),
        _ => Err(Problem::new(Code::Forbidden, "this token is for calls only")),
    }
}
