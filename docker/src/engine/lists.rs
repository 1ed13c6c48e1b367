//! Which containers there are.
//!
//! Read here, and not by the library: Podman has states of which Docker's description does not know,
//! and one container in such a state would hide all others.

use super::{Engine, EngineError, error::Doing};
use bollard::errors::Error;
use serde::Deserialize;
use std::{collections::HashMap, fmt::Write};

/// A line of a list of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub labels: HashMap<String, String>,
    /// Paused counts as running.
    pub is_running: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    id: String,
    labels: Option<HashMap<String, String>>,
    state: Option<String>,
}

impl Engine {
    /// Every container with this label, whatever its value and the container's state.
    pub async fn list(&self, label: &str) -> Result<Vec<Listed>, EngineError> {
        let filters = serde_json::json!({ "label": [label] }).to_string();
        let path = format!("/containers/json?all=true&filters={}", encoded(&filters));
        let read = self.connected().await?.transport.read(&path).await;
        let lines = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(Error::from));
        let lines: Vec<Line> = lines.doing("list containers")?;
        Ok(lines.into_iter().map(Listed::read).collect())
    }
}

impl Listed {
    fn read(line: Line) -> Self {
        let state = line.state.as_deref();
        Self {
            id: line.id,
            labels: line.labels.unwrap_or_default(),
            is_running: matches!(state, Some("running" | "paused" | "restarting" | "stopping")),
        }
    }
}

/// For a path or a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            // Writing to a string never fails.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_docker_does_not_have_hides_no_container() {
        let text = r#"[
            {"Id": "a", "Labels": {"of": "me"}, "State": "stopped", "Status": ""},
            {"Id": "b", "Labels": null, "State": "running"},
            {"Id": "c", "State": "paused"}
        ]"#;
        let lines: Vec<Line> = serde_json::from_str(text).unwrap();
        let listed: Vec<_> = lines.into_iter().map(Listed::read).collect();
        let running: Vec<_> = listed.iter().map(|it| (&*it.id, it.is_running)).collect();
        assert_eq!(running, [("a", false), ("b", true), ("c", true)]);
        assert_eq!(listed[0].labels["of"], "me");
        assert_eq!(encoded("{\"l\":[\"ü\"]}"), "%7B%22l%22%3A%5B%22%C3%BC%22%5D%7D");
    }
}
