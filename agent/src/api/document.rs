//! `/openapi.json`, made from the handlers and types; `docs/openapi-agent.json` is the same.

use super::{events, metrics, routes, submit};
use axum::{http::StatusCode, response::Response};
use bytes::Bytes;
use slotmux_edge::json_text;
use slotmux_protocol::{CausedBy, Code, Problem, job::JobRequest};
use std::{collections::BTreeMap, sync::LazyLock};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Content, ObjectBuilder, RefOr, ResponseBuilder, ResponsesBuilder,
        path::{Operation, PathItem},
        schema::{SchemaFormat, SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Slotmux agent",
        description = "Runs one-shot jobs, each in a container of its own. Errors are problem details (RFC 9457) with a stable `code`; see docs/problems.md.",
        license(name = "Apache-2.0"),
    ),
    tags(
        (name = "jobs", description = "Submitting, following, ending; fetching results"),
        (name = "agent", description = "How the agent is"),
    ),
    paths(
        submit::submit, routes::list, routes::get, events::events, routes::kill, routes::result,
        routes::delete, routes::health, metrics::metrics,
    ),
    components(schemas(Problem, Code, CausedBy, JobRequest)),
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

/// Adds what every operation has in common, and the form with files.
struct Finish;

impl Modify for Finish {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Only when the agent was started with a token."))
            .build();
        if let Some(components) = &mut document.components {
            components.add_security_scheme("token", SecurityScheme::Http(bearer));
        }
        for (path, item) in &mut document.paths.paths {
            if let Some(body) = item.post.as_mut().and_then(|it| it.request_body.as_mut()) {
                body.content.insert("multipart/form-data".to_owned(), form());
            }
            for (method, operation) in operations(item) {
                add_refusals(operation, &refusals(method, path));
            }
        }
    }
}

fn form() -> Content {
    let files = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .format(Some(SchemaFormat::Custom("binary".to_owned())))
        .description(Some("A tar archive"));
    let form = ObjectBuilder::new()
        .property("job", openapi::Ref::from_schema_name("JobRequest"))
        .required("job")
        .property("files", files);
    Content::new(Some(form))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let methods = [("get", &mut item.get), ("post", &mut item.post), ("delete", &mut item.delete)];
    methods.into_iter().filter_map(|(name, operation)| Some((name, operation.as_mut()?)))
}

/// Which problems an operation answers with.
fn refusals(method: &str, path: &str) -> Vec<Code> {
    use Code::{
        Forbidden, Internal, Invalid, JobDropped, JobIdReused, JobNotDone, Malformed, QueueFull,
        ShuttingDown, TooLarge, Unauthenticated, UnknownJob,
    };
    let own: &[Code] = match (method, path) {
        (_, "/health") => return Vec::new(),
        ("post", "/v1/jobs") => {
            &[Malformed, Invalid, TooLarge, JobIdReused, JobDropped, QueueFull, ShuttingDown]
        }
        (_, "/v1/jobs" | "/metrics") => &[],
        ("delete", _) => &[UnknownJob, JobNotDone],
        (_, path) if path.ends_with("/result") || path.ends_with("/events") => {
            &[UnknownJob, JobDropped, Invalid]
        }
        _ => &[UnknownJob, JobDropped],
    };
    [Unauthenticated, Forbidden, Internal].iter().chain(own).copied().collect()
}

fn add_refusals(operation: &mut Operation, codes: &[Code]) {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(*code);
    }
    let mut responses = ResponsesBuilder::new();
    for (status, codes) in by_status {
        let words: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
        let example = Problem::new(codes[0], "What was wrong, and what to do.");
        let content = Content::builder()
            .schema(Some(openapi::Ref::from_schema_name("Problem")))
            .example(serde_json::to_value(example).ok())
            .build();
        let response = ResponseBuilder::new()
            .description(words.join(", "))
            .content("application/problem+json", content);
        responses = responses.response(status.to_string(), RefOr::T(response.build()));
    }
    operation.responses.responses.extend(responses.build().responses);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn the_committed_document_is_the_served_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi-agent.json");
        let made = openapi().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == made, "docs/openapi-agent.json is old; run this test with UPDATE=1");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = openapi().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut seen = 0;
        for reference in text.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }
}
