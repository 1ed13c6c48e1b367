//! Reading a JSON body: bounded in size and time, and with the field at fault named.

use super::reply::Refusal;
use crate::http::body::{BODY_WAIT, Fault, read};
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use slotmux_protocol::{Code, Problem};

/// Its content type is not looked at.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = read(request, state).await.map_err(|fault| match fault {
            Fault::Late => {
                let wait = BODY_WAIT.as_secs();
                let detail = format!("the body did not come whole within {wait} s");
                Problem::new(Code::Malformed, detail)
            }
            Fault::Refused { status, text } if status.as_u16() == 413 => {
                Problem::new(Code::TooLarge, format!("{text}; send less at once"))
            }
            Fault::Refused { text, .. } => Problem::new(Code::Malformed, text),
        })?;
        Ok(Self(parse(&bytes)?))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Derived types would take an array too, field by field.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::new(Code::Invalid, "the body is an array, and must be an object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|fault| {
        let path = fault.path().to_string();
        let error = fault.into_inner();
        let code = match error.classify() {
            Category::Data => Code::Invalid,
            _ => Code::Malformed,
        };
        let problem = Problem::new(code, error.to_string());
        // `?`: it broke off before there was a place.
        if matches!(path.as_str(), "." | "?") { problem } else { problem.at(path) }
    })?;
    json.end().map_err(|error| Problem::new(Code::Malformed, error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmux_protocol::v1::ExecuteRequest;

    #[test]
    fn a_fault_is_told_apart_and_named() {
        let code = |text: &str| {
            let problem = parse::<ExecuteRequest>(text.as_bytes()).unwrap_err();
            (problem.code, problem.field.unwrap_or_default())
        };
        let field = |name: &str| name.to_owned();
        assert_eq!(code("{"), (Code::Malformed, field("")));
        assert_eq!(code("[]"), (Code::Invalid, field("")));
        assert_eq!(code(r#"{"tool": 7, "args": {}}"#), (Code::Invalid, field("tool")));
        assert_eq!(code(r#"{"tool": "bash", "args": {}} x"#), (Code::Malformed, field("")));
        let unknown = code(r#"{"tool": "bash", "args": {}, "timeout": 3}"#);
        assert_eq!(unknown, (Code::Invalid, field("timeout")));
    }
}
