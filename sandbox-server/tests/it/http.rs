//! A client of the atropos wire.

use crate::server::Server;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slotmux_protocol::atropos::SlotResult;

impl Server {
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.authority);
        let mut request = self.http.request(method, url).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text);
        (status, json.unwrap_or_else(|error| panic!("{path} {status}: {error}: {text:?}")))
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Value) {
        self.request(Method::POST, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.request(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// One call that is answered with 200, whatever came of it.
    pub(crate) async fn call(&self, call: Value) -> SlotResult {
        let (status, body) = self.post("/execute", call.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{call}: {body}");
        serde_json::from_value(body).unwrap()
    }

    pub(crate) async fn batch(&self, calls: Vec<Value>) -> Vec<SlotResult> {
        let (status, body) = self.post("/batch", Value::from(calls).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    pub(crate) async fn bash_within(&self, slot: u16, command: &str, timeout_s: f64) -> SlotResult {
        let mut call = bash(slot, command);
        call["timeout"] = timeout_s.into();
        self.call(call).await
    }

    pub(crate) async fn bash(&self, slot: u16, command: &str) -> SlotResult {
        self.call(bash(slot, command)).await
    }

    /// What a command prints that has to go well.
    pub(crate) async fn output(&self, slot: u16, command: &str) -> String {
        let result = self.bash(slot, command).await;
        assert!(result.success, "{command}: {result:?}");
        result.output
    }

    pub(crate) async fn read(&self, slot: u16, path: &str) -> SlotResult {
        self.call(read_file(slot, path)).await
    }

    pub(crate) async fn write(&self, slot: u16, path: &str, content: &str) -> SlotResult {
        self.call(write_file(slot, path, content)).await
    }

    pub(crate) async fn reset(&self, slot: u16) -> SlotResult {
        let body = json!({ "slot_id": format!("slot_{slot}") }).to_string();
        let (status, body) = self.post("/reset", body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    /// Runs a function of this test executable inside a slot; see [`crate::probe`].
    pub(crate) async fn probe(&self, slot: u16, name: &str, args: &str) -> SlotResult {
        self.bash(slot, &self.probe_command(name, args)).await
    }

    pub(crate) fn probe_command(&self, name: &str, args: &str) -> String {
        let probe = self.dir.path().join("probe/probe");
        format!(
            "PROBE={name} PROBE_ARGS='{args}' {} --exact probe::in_a_slot --nocapture --quiet",
            probe.display()
        )
    }

    /// Whether the slot runs a call at the moment.
    pub(crate) async fn is_executing(&self, slot: u16) -> bool {
        let slots = self.get("/slots").await;
        slots["slots"][usize::from(slot)]["state"] == "executing"
    }
}

pub(crate) fn call(slot: u16, tool: &str, args: Value) -> Value {
    json!({ "slot_id": format!("slot_{slot}"), "tool": tool, "args": args, "timeout": 20.0 })
}

pub(crate) fn bash(slot: u16, command: &str) -> Value {
    call(slot, "bash", json!({ "command": command }))
}

pub(crate) fn read_file(slot: u16, path: &str) -> Value {
    call(slot, "read_file", json!({ "path": path }))
}

pub(crate) fn write_file(slot: u16, path: &str, content: &str) -> Value {
    call(slot, "write_file", json!({ "path": path, "content": content }))
}
