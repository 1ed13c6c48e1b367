//! `/v1/tools`: what can be run, in the form in which models are told of functions.

use axum::{http::StatusCode, response::Response};
use bytes::Bytes;
use serde_json::Value;
use slotmux_edge::json_text;
use slotmux_protocol::ToolCall;
use std::sync::LazyLock;

static TOOLS: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(Value::from(ToolCall::functions()).to_string()));

/// The tools and the JSON schemas of their arguments, as function tools for models.
#[utoipa::path(
    get, path = "/v1/tools", tag = "tools",
    responses((
        status = 200,
        description = "One object for each tool",
        body = Vec<Object>,
        example = json!([{"type": "function", "function": {"name": "bash", "description": "…", "parameters": {}}}])
    )),
)]
pub(super) async fn tools() -> Response {
    json_text(StatusCode::OK, TOOLS.clone())
}
