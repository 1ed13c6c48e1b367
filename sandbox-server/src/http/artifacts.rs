//! Artifacts of the atropos wire: what a slot has made, as files, lists and archives.
//!
//! Each is a call of a tool, in the slot's order; here are only the words of the wire.

mod mime;

use super::{
    atropos::find_slot,
    body::{Whole, parse, refuse},
};
use crate::{
    access::Access,
    outcome::{Body, Outcome},
    server::Server,
    slot::Request,
};
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Json, Response},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use slotmux_protocol::{
    ArchiveArgs, CallLimits, Code, Encoding, Ended, ListFilesArgs, Network, Problem, ReadFileArgs,
    ToolCall,
};
use std::{fmt::Write as _, sync::Arc};

const BYTES_MAX: u64 = 5_000_000;
const TIMEOUT_MS: u64 = 60_000;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/artifacts/read", post(read))
        .route("/artifacts/list", post(list))
        .route("/artifacts/archive", post(archive))
}

#[derive(Deserialize)]
struct Read {
    slot_id: String,
    path: String,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    max_bytes: Option<u64>,
    #[serde(default)]
    include_sha256: bool,
}

#[derive(Deserialize)]
struct List {
    slot_id: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    max_entries: Option<u64>,
}

#[derive(Deserialize)]
struct Archive {
    slot_id: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    max_bytes: Option<u64>,
    #[serde(default)]
    max_entries: Option<u64>,
}

async fn read(
    State(server): State<Arc<Server>>,
    access: Access,
    Whole(body): Whole,
) -> Result<Response, Response> {
    let Read { slot_id, path, encoding, max_bytes, include_sha256 } = parse(body)?;
    let encoding = match encoding.as_deref().unwrap_or("text") {
        "text" => Encoding::Text,
        "base64" => Encoding::Base64,
        other => return Err(unsupported("encoding", other, "text, base64")),
    };
    let args = ReadFileArgs {
        path: named(Some(path.clone())),
        offset: Some(0),
        max_bytes: Some(limit(max_bytes).unwrap_or(BYTES_MAX).min(BYTES_MAX)),
        // The hash is that of the bytes, whatever they are shown as.
        encoding: Encoding::Base64,
        ..ReadFileArgs::default()
    };
    let (text, data) = call(&server, access, &slot_id, ToolCall::ReadFile(args)).await?;
    let bytes = BASE64_STANDARD.decode(&text).map_err(|_| broken())?;
    let sha256 = include_sha256.then(|| hex(&Sha256::digest(&bytes)));
    let content = match encoding {
        Encoding::Text => String::from_utf8_lossy(&bytes).into_owned(),
        Encoding::Base64 => text,
    };
    let answer = json!({
        "success": true,
        "content": content,
        "encoding": encoding,
        "truncated": data["truncated"],
        "bytes": bytes.len(),
        "file_size": data["file_bytes"],
        "mime": mime::of(&path),
        "path": path,
        "sha256": sha256,
    });
    Ok(Json(answer).into_response())
}

async fn list(
    State(server): State<Arc<Server>>,
    access: Access,
    Whole(body): Whole,
) -> Result<Response, Response> {
    let List { slot_id, path, recursive, max_entries } = parse(body)?;
    let args =
        ListFilesArgs { path: Some(named(path)), recursive, max_entries: limit(max_entries) };
    let (_, mut data) = call(&server, access, &slot_id, ToolCall::ListFiles(args)).await?;
    let Value::Array(entries) = data["entries"].take() else { return Err(broken()) };
    let entries = entries.into_iter().map(|mut entry| {
        json!({
            "path": entry["path"].take(),
            "is_dir": entry["kind"] == "directory",
            "size": entry["size"].take(),
            "mtime": entry["mtime"].take(),
        })
    });
    let answer = json!({
        "success": true,
        "entries": entries.collect::<Vec<_>>(),
        "truncated": data["truncated"],
    });
    Ok(Json(answer).into_response())
}

async fn archive(
    State(server): State<Arc<Server>>,
    access: Access,
    Whole(body): Whole,
) -> Result<Response, Response> {
    let Archive { slot_id, path, format, max_bytes, max_entries } = parse(body)?;
    match format.as_deref().unwrap_or("tar.gz") {
        "tar.gz" | "tgz" => {}
        other => return Err(unsupported("format", other, "tar.gz, tgz")),
    }
    let args = ArchiveArgs {
        path: Some(named(path)),
        max_bytes: limit(max_bytes),
        max_entries: limit(max_entries),
    };
    let (text, data) = call(&server, access, &slot_id, ToolCall::Archive(args)).await?;
    let answer = json!({
        "success": true,
        "content": text,
        "encoding": "base64",
        "format": "tar.gz",
        "bytes": data["bytes"],
        "entry_count": data["entries"],
    });
    Ok(Json(answer).into_response())
}

/// Of this wire, nothing and 0 are the default.
fn limit(wanted: Option<u64>) -> Option<u64> {
    wanted.filter(|it| *it > 0)
}

/// Nothing is the workspace itself.
fn named(path: Option<String>) -> String {
    path.filter(|it| !it.is_empty()).unwrap_or_else(|| ".".to_owned())
}

/// What the tool says and what it has for programs; or the refusal.
async fn call(
    server: &Server,
    access: Access,
    slot_id: &str,
    tool: ToolCall,
) -> Result<(String, Value), Response> {
    let slot = find_slot(server, slot_id).map_err(|error| refuse(StatusCode::NOT_FOUND, &error))?;
    if server.draining.is_cancelled() {
        return Err(problem(&Problem::new(Code::ShuttingDown, "the server is shutting down")));
    }
    let request = Request {
        scope: access.scope(slot.index).map_err(|it| problem(&it))?,
        execution_id: None,
        tool,
        limits: CallLimits { timeout_ms: TIMEOUT_MS, ..CallLimits::default() },
        network: Network::On,
    };
    let begun = slot.begin(request).map_err(|it| problem(&it))?;
    let outcome = begun.answer().await.map_err(|it| problem(&it))?;
    if outcome.success() {
        return match Arc::unwrap_or_clone(outcome) {
            Outcome { body: Body::Text(text), data: Some(data), .. } => Ok((text, data)),
            _ => Err(broken()),
        };
    }
    Err(refuse(status(&outcome), &outcome.error))
}

fn status(outcome: &Outcome) -> StatusCode {
    let reason = outcome.data.as_ref().and_then(|it| it["reason"].as_str());
    match (outcome.ended, reason) {
        (Ended::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
        (Ended::Cancelled, _) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Some("outside" | "denied")) => StatusCode::FORBIDDEN,
        (_, Some("not_found")) => StatusCode::NOT_FOUND,
        (_, Some("not_a_file" | "not_a_directory" | "invalid")) => StatusCode::BAD_REQUEST,
        (_, Some("too_large")) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn problem(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.code.status());
    refuse(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &problem.detail)
}

fn unsupported(what: &str, given: &str, known: &str) -> Response {
    let given: String = given.chars().take(100).collect();
    refuse(StatusCode::BAD_REQUEST, &format!("Unsupported {what}: {given} (one of {known})"))
}

fn broken() -> Response {
    tracing::error!("a tool of files answered without its data");
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the tool failed; see the log")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
