//! Reading a request's body: bounded in size and time, and with the field at fault named.

use super::{Api, reply::Refusal};
use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::CONTENT_LENGTH,
};
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use slotmux_protocol::{Code, Problem};
use std::time::Duration;
use tokio::time::timeout;

/// How long we go on reading what we will not take, so that the client gets to read our answer.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// And how much of it, in times of the limit.
const DRAIN_TIMES: usize = 4;

/// A JSON body. Its content type is not looked at.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        Ok(Self(parse(&read(request, api).await?)?))
    }
}

/// Like [`Json`], for bodies that may be left out.
pub(super) struct MaybeJson<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for MaybeJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let bytes = read(request, api).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse(&bytes)?))
    }
}

async fn read(request: Request, api: &Api) -> Result<BytesMut, Problem> {
    let limit = api.settings.limits.body_bytes_max;
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    let mut body = request.into_body();
    if announced > limit {
        drain(&mut body, limit).await;
        return Err(too_large(limit));
    }
    let wait = api.settings.body_wait;
    let Ok(bytes) = timeout(wait, collect(&mut body, announced, limit)).await else {
        return Err(Problem::new(
            Code::Malformed,
            format!("the body did not come whole within {} s", wait.as_secs()),
        ));
    };
    if let Some(bytes) = bytes? {
        return Ok(bytes);
    }
    drain(&mut body, limit).await;
    Err(too_large(limit))
}

/// `None` when it is over the limit.
async fn collect(
    body: &mut Body,
    announced: usize,
    limit: usize,
) -> Result<Option<BytesMut>, Problem> {
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Problem::new(Code::Malformed, format!("read the body: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(Some(bytes))
}

async fn drain(body: &mut Body, limit: usize) {
    let rest = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, bytes::Bytes::len);
            if seen > limit.saturating_mul(DRAIN_TIMES) {
                break;
            }
        }
    };
    // However it ends, the answer is the same.
    let _ = timeout(DRAIN_WAIT, rest).await;
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("a body has at most {limit} bytes; send less at once"))
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(Code::Malformed, format!("the body is not UTF-8 from byte {at} on"))
    })?;
    // Derived types would take an array too, field by field.
    if text.trim_ascii_start().starts_with('[') {
        return Err(Problem::new(Code::Invalid, "the body is an array, and must be an object"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|fault| {
        let path = fault.path().to_string();
        problem(&path, fault.inner())
    })?;
    json.end().map_err(|error| problem(".", &error))?;
    Ok(parsed)
}

fn problem(path: &str, error: &serde_json::Error) -> Problem {
    let said = error.to_string();
    if error.classify() != Category::Data {
        return Problem::new(Code::Malformed, format!("the body is not JSON: {said}"));
    }
    let problem = Problem::new(Code::Invalid, said.clone());
    match (path, missing_field(&said)) {
        (".", None) => problem,
        (".", Some(missing)) => problem.at(missing),
        (path, None) => problem.at(path),
        (path, Some(missing)) => problem.at(format!("{path}.{missing}")),
    }
}

/// The path leads to the object that lacks a field, not to the field.
fn missing_field(said: &str) -> Option<&str> {
    said.strip_prefix("missing field `")?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmux_protocol::v1::{BatchRequest, ExecuteRequest};

    fn fault<T: DeserializeOwned>(body: &[u8]) -> (Code, Option<String>) {
        match parse::<T>(body) {
            Err(problem) => (problem.code, problem.field),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        let deep = format!("{{\"args\": {}", "[".repeat(100_000));
        let bodies: [&[u8]; 7] = [
            b"",
            b"{",
            b"{]",
            b"{\"tool\": \"\xff\"}",
            b"{\"tool\": \"bash\", \"args\": {}} x",
            b"\xef\xbb\xbf{}",
            deep.as_bytes(),
        ];
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
            assert_eq!(fault::<ExecuteRequest>(body).0, Code::Malformed, "{shown}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let named = |body: &str| fault::<ExecuteRequest>(body.as_bytes());
        let at = |field: &str| (Code::Invalid, Some(field.to_owned()));
        assert_eq!(named(r#"{"tool": 7, "args": {}}"#), at("tool"));
        assert_eq!(named(r#"{"args": {}}"#), at("tool"));
        assert_eq!(named(r#"{"tool": "bash", "args": {}, "timeout_s": -1}"#), at("timeout_s"));
        assert_eq!(named(r#"{"tool": "bash", "args": {}, "shell": 1}"#), at("shell"));
        assert_eq!(named("[]").0, Code::Invalid);
        let batch = r#"{"calls": [{"lease_id": "lease-1", "tool": "bash", "args": {}}, {"lease_id": "x"}]}"#;
        assert_eq!(fault::<BatchRequest>(batch.as_bytes()), at("calls[1].lease_id"));
        let batch = r#"{"calls": [{"lease_id": "lease-1", "args": {}}]}"#;
        assert_eq!(fault::<BatchRequest>(batch.as_bytes()), at("calls[0].tool"));
    }
}
