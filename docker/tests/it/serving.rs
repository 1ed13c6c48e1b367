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
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = json!({"slot_id": "slot_0", "tool": "bash", "args": {"command": command}});
    let answer = http
        .post(format!("http://{}/execute", address.authority))
        .bearer_auth(&address.token)
        .json(&call)
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["success"], true, "{answer}");
    answer["output"].as_str().unwrap().to_owned()
}

/// What a call with another token is answered.
pub(crate) async fn status_of_a_stranger(address: &Address) -> u16 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = json!({"slot_id": "slot_0", "tool": "bash", "args": {"command": "id"}});
    let url = format!("http://{}/execute", address.authority);
    let answer = http.post(url).bearer_auth("another").json(&call).send().await.unwrap();
    answer.status().as_u16()
}
