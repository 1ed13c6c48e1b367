//! A JSON body, with the field at fault named.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use slotmux_protocol::{Code, Problem};

/// A JSON object, and nothing behind it.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
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
