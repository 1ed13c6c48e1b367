//! Talks to a container's server as its pool would.

use serde_json::{Value, json};
use slotmux_backend::Address;

pub(crate) async fn health(address: &Address) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(format!("http://{}/health", address.authority)).send().await.unwrap();
    answer.json().await.unwrap()
}

/// What a command in the first slot prints.
pub(crate) async fn output(address: &Address, command: &str) -> String {
    output_of(address, 0, command).await
}

/// What a command prints.
pub(crate) async fn output_of(address: &Address, slot: u16, command: &str) -> String {
    let call = json!({
        "slot_id": format!("slot_{slot}"), "tool": "bash", "args": {"command": command}
    });
    let answer = post(address, "execute", &call).await;
    assert_eq!(answer["success"], true, "{answer}");
    answer["output"].as_str().unwrap().to_owned()
}

pub(crate) async fn reset(address: &Address, slot: u16) {
    let answer = post(address, "reset", &json!({ "slot_id": format!("slot_{slot}") })).await;
    assert_eq!(answer["success"], true, "{answer}");
}

async fn post(address: &Address, path: &str, body: &Value) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/{path}", address.authority);
    let answer = http.post(url).bearer_auth(&address.token).json(body).send().await.unwrap();
    answer.json().await.unwrap()
}

/// What a call with another token is answered.
pub(crate) async fn status_of_a_stranger(address: &Address) -> u16 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = json!({"slot_id": "slot_0", "tool": "bash", "args": {"command": "id"}});
    let url = format!("http://{}/execute", address.authority);
    let answer = http.post(url).bearer_auth("another").json(&call).send().await.unwrap();
    answer.status().as_u16()
}
