//! `/v1/tools`: what can be run, in the form in which models are told of functions.

use super::reply::json_text;
use axum::{http::StatusCode, response::Response};
use bytes::Bytes;
use serde_json::{Value, json};
use slotmux_protocol::{BashArgs, ReadFileArgs, ToolCall, WriteFileArgs};
use std::sync::LazyLock;
use utoipa::PartialSchema;

static TOOLS: LazyLock<Bytes> = LazyLock::new(|| {
    let tools: Vec<Value> = ToolCall::NAMES.iter().map(|name| tool(name)).collect();
    Bytes::from(Value::from(tools).to_string())
});

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

fn tool(name: &str) -> Value {
    let (description, parameters) = match name {
        "bash" => (
            "Run a bash command in the workspace. Every call is a new shell; files stay.",
            schema::<BashArgs>(),
        ),
        "read_file" => ("Read a text file of the workspace.", schema::<ReadFileArgs>()),
        "write_file" => (
            "Write a text file in the workspace, making its directories.",
            schema::<WriteFileArgs>(),
        ),
        _ => ("", Value::Null),
    };
    json!({
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    })
}

fn schema<T: PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_description_and_a_closed_schema() {
        for name in ToolCall::NAMES {
            let tool = tool(name);
            let function = &tool["function"];
            assert_ne!(function["description"], "", "{name}");
            assert_eq!(function["parameters"]["type"], "object", "{name}");
            assert_eq!(function["parameters"]["additionalProperties"], false, "{name}");
            assert!(function["parameters"]["required"].as_array().is_some_and(|it| !it.is_empty()));
        }
    }
}
