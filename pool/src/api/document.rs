//! `/openapi.json`, made from the handlers and types; `docs/openapi.json` is the same.

use super::{atropos, batch, events, execute, leases, status, tools};
use axum::{http::StatusCode, response::Response};
use bytes::Bytes;
use serde_json::json;
use slotmux_edge::json_text;
use slotmux_protocol::{CausedBy, Code, Problem};
use std::{collections::BTreeMap, sync::LazyLock};
use utoipa::{
    Modify, OpenApi, PartialSchema,
    openapi::{
        self, Content, RefOr, ResponseBuilder, ResponsesBuilder,
        path::{Operation, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Slotmux pool",
        description = "Hands out isolated workspaces (slots) in few containers, and runs tools in them. Errors are problem details (RFC 9457) with a stable `code`; see docs/problems.md.",
        license(name = "Apache-2.0"),
    ),
    tags(
        (name = "leases", description = "Who holds which slot"),
        (name = "tools", description = "Running tools in a slot"),
        (name = "pool", description = "How the pool is"),
        (name = "atropos", description = "The wire of the Python slot pool, unchanged"),
    ),
    paths(
        leases::acquire, leases::get, leases::renew, leases::release, execute::execute,
        batch::batch, tools::tools, status::status, events::events, status::health,
        atropos::execute, atropos::release, atropos::status,
    ),
    components(schemas(Problem, Code, CausedBy)),
    security(("token" = [])),
    modifiers(&Finish),
)]
struct Document;

/// The document as text, with a newline at its end.
pub fn openapi() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json().map(|text| text + "\n")
}

static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(openapi().unwrap_or_default()));

pub(super) async fn document() -> Response {
    json_text(StatusCode::OK, TEXT.clone())
}

/// Adds what every operation has in common.
struct Finish;

impl Modify for Finish {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Only when the pool was started with a token."))
            .build();
        if let Some(components) = &mut document.components {
            components.add_security_scheme("token", SecurityScheme::Http(bearer));
        }
        for (path, item) in &mut document.paths.paths {
            let codes = refusals(path);
            for operation in operations(item) {
                add_refusals(operation, path, &codes);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

/// Which problems a path answers with.
fn refusals(path: &str) -> Vec<Code> {
    use Code::{
        AcquireTimeout, AlreadyHeld, ContainerUnreachable, ExecutionIdReused, Forbidden, Internal,
        Invalid, IsolationUnavailable, JournalUnavailable, LaunchFailed, LeaseExpired,
        LeaseReleased, LeaseRevoked, Malformed, NeverEnough, NoShell, QueueFull, ShuttingDown,
        SlotBroken, StaleEpoch, Superseded, TooLarge, Unauthenticated, UnknownLease,
        UnknownProfile, UnknownTool,
    };
    let body = [Malformed, Invalid, TooLarge];
    let lease = [UnknownLease, LeaseRevoked, LeaseExpired, LeaseReleased];
    let refused = [UnknownProfile, AlreadyHeld, Superseded, NeverEnough, QueueFull];
    let failed = [AcquireTimeout, LaunchFailed, JournalUnavailable];
    let own: Vec<&[Code]> = match path {
        "/health" | "/openapi.json" => return Vec::new(),
        "/v1/leases" => vec![&body, &refused, &failed],
        "/v1/leases/{lease_id}" => vec![&lease, &[JournalUnavailable]],
        "/v1/leases/{lease_id}/renew" => vec![&body, &lease, &[JournalUnavailable]],
        "/v1/leases/{lease_id}/execute" => vec![
            &body,
            &lease,
            &[UnknownTool, StaleEpoch, ExecutionIdReused, QueueFull],
            &[ContainerUnreachable, SlotBroken, NoShell, IsolationUnavailable],
        ],
        "/v1/batch" | "/execute" => vec![&body],
        "/release" => vec![&body, &[JournalUnavailable]],
        "/v1/events" => vec![&[Invalid]],
        _ => Vec::new(),
    };
    let common = [Unauthenticated, Forbidden, ShuttingDown, Internal];
    common.into_iter().chain(own.concat()).collect()
}

fn add_refusals(operation: &mut Operation, path: &str, codes: &[Code]) {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(*code);
    }
    let in_atropos_words = matches!(path, "/execute" | "/release" | "/status");
    let mut responses = ResponsesBuilder::new();
    for (status, codes) in by_status {
        let words: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
        let (kind, content) =
            if in_atropos_words { plain_refusal(codes[0]) } else { problem_refusal(codes[0]) };
        let response = ResponseBuilder::new().description(words.join(", ")).content(kind, content);
        responses = responses.response(status.to_string(), RefOr::T(response.build()));
    }
    operation.responses.responses.extend(responses.build().responses);
}

fn problem_refusal(code: Code) -> (&'static str, Content) {
    let content = Content::builder()
        .schema(Some(openapi::Ref::from_schema_name("Problem")))
        .example(serde_json::to_value(Problem::new(code, "What was wrong, and what to do.")).ok())
        .build();
    ("application/problem+json", content)
}

fn plain_refusal(code: Code) -> (&'static str, Content) {
    let content = Content::builder()
        .schema(Some(serde_json::Value::schema()))
        .example(Some(json!({"success": false, "error": "What was wrong.", "code": code})))
        .build();
    ("application/json", content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::Path};

    #[test]
    fn the_committed_document_is_the_served_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let made = openapi().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == made, "docs/openapi.json is old; run this test with UPDATE=1");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = openapi().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let references = text.split("\"$ref\": \"#").skip(1);
        let mut seen = 0;
        for reference in references {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document: serde_json::Value = serde_json::from_str(&openapi().unwrap()).unwrap();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                assert!(names.insert(name.clone()), "{method} {path}: {name}");
            }
        }
        assert_eq!(names.len(), 13);
    }

    #[test]
    fn every_code_is_explained() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/problems.md");
        let text = fs::read_to_string(path).unwrap();
        for code in Code::ALL {
            let heading = format!("## {code}\n\n{} · ", code.status());
            assert!(text.contains(&heading), "docs/problems.md lacks `{heading}`");
        }
    }
}
