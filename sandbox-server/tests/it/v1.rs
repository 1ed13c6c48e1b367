//! The v1 surface of a server, as a client of its own container sees it.

use crate::{
    host::{mark, marked, until, until_gone, until_within},
    rung::ANY,
    server::{LIMIT, Server, Setup},
};
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};

impl Server {
    /// Lines of JSON, all of them.
    async fn lines(&self, path: &str, body: &Value) -> Vec<Value> {
        let url = format!("http://{}{path}", self.authority);
        let request = self.http.post(url).header(ACCEPT, "application/x-ndjson");
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/x-ndjson");
        let text = response.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn bash(command: &str) -> Value {
    json!({ "tool": "bash", "args": { "command": command } })
}

async fn refused(server: &Server, path: &str, body: &str) -> (u16, String, String) {
    let (status, problem) = server.post(path, body.to_owned()).await;
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    assert_ne!(text("detail"), "", "{problem}");
    (status.as_u16(), text("code"), text("field"))
}

#[tokio::test]
async fn a_call_is_answered_in_full() {
    let server = Server::start(&ANY);
    let call = bash("echo out; echo err >&2; exit 3");
    for slot in ["slot_1", "1"] {
        let path = format!("/v1/slots/{slot}/execute");
        let (status, result) = server.post(&path, call.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{result}");
        assert_eq!(result["output"], "out\n\n[stderr]\nerr\n", "{result}");
        assert_eq!((&result["ended"], &result["exit_code"]), (&json!("exited"), &json!(3)));
        assert_eq!((&result["success"], &result["caused_by"]), (&json!(false), &json!("policy")));
        assert!(result["usage"]["wall_us"].as_u64() > Some(0), "{result}");
        assert!(result["execution_id"].as_str().is_some_and(|it| !it.is_empty()), "{result}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_with_a_code_and_a_place() {
    let server = Server::start(&ANY);
    let execute = "/v1/slots/slot_0/execute";
    let ok = bash("true").to_string();
    let too_long = json!({ "tool": "bash", "args": { "command": "x" }, "timeout_s": 90_000 });
    let table = [
        ("/v1/slots/slot_9/execute", ok.as_str(), (404, "unknown_slot", "slot")),
        ("/v1/slots/slot_00/execute", &ok, (404, "unknown_slot", "slot")),
        ("/v1/slots/slot_9/reset", "", (404, "unknown_slot", "slot")),
        ("/v1/nothing", &ok, (404, "not_found", "")),
        ("/v1/slots", &ok, (405, "method_not_allowed", "")),
        (execute, "", (400, "malformed", "")),
        (execute, "[]", (422, "invalid", "")),
        (execute, r#"{"tool": "bash"}"#, (422, "invalid", "args")),
        (execute, r#"{"tool": "python", "args": {}}"#, (422, "unknown_tool", "tool")),
        (execute, r#"{"tool": "bash", "args": {"command": 1}}"#, (422, "invalid", "args.command")),
        (
            execute,
            r#"{"tool": "bash", "args": {}, "timeout_s": -1}"#,
            (422, "invalid", "timeout_s"),
        ),
        (execute, &too_long.to_string(), (422, "invalid", "timeout_s")),
        ("/v1/batch", r#"{"calls": {}}"#, (422, "invalid", "calls")),
    ];
    for (path, body, (status, code, field)) in table {
        let wanted = (status, code.to_owned(), field.to_owned());
        assert_eq!(refused(&server, path, body).await, wanted, "{path} {body}");
    }
}

#[tokio::test]
async fn the_token_is_asked_for_in_the_words_of_the_surface() {
    let setup = Setup { env: &[("SLOTMUX_CONTAINER_TOKEN", "right")], ..Setup::default() };
    let mut server = Server::with(&ANY, setup);
    for (token, status, code) in [(None, 401, "unauthenticated"), (Some("wrong"), 403, "forbidden")]
    {
        server.token = token.map(str::to_owned);
        let (got, problem) = server.request(Method::GET, "/v1/slots", "").await;
        assert_eq!((got.as_u16(), &problem["code"]), (status, &json!(code)), "{problem}");
        let (got, body) = server.request(Method::GET, "/slots", "").await;
        assert_eq!((got.as_u16(), &body["success"]), (status, &json!(false)), "{body}");
    }
    server.token = Some("right".to_owned());
    assert_eq!(server.get("/v1/slots").await["slots"][0]["state"], "clean");
}

#[tokio::test]
async fn a_batch_keeps_the_order_of_a_slot_and_answers_each_call() {
    let server = Server::start(&ANY);
    let call = |slot: u16, command: &str| json!({ "slot": slot, "tool": "bash", "args": { "command": command } });
    let calls = json!({ "calls": [
        call(0, "echo one >> log"),
        call(0, "echo two >> log; cat log"),
        call(7, "true"),
        call(1, "ls -A"),
    ]});
    let (status, answer) = server.post("/v1/batch", calls.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let results = answer["results"].as_array().unwrap();
    let indices: Vec<_> = results.iter().map(|it| it["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_eq!(results[1]["result"]["output"], "one\ntwo\n");
    assert_eq!(results[2]["problem"]["code"], "unknown_slot");
    assert_eq!(results[3]["result"]["output"], "");
}

#[tokio::test]
async fn a_batch_in_lines_does_not_wait_for_its_slowest_call() {
    let server = Server::start(&ANY);
    let slow = "while [ ! -e go ]; do sleep 0.01; done";
    let calls = json!({ "calls": [
        { "slot": 0, "tool": "bash", "args": { "command": slow } },
        { "slot": 1, "tool": "bash", "args": { "command": "true" } },
    ]});
    let url = format!("http://{}/v1/batch", server.authority);
    let request = server.http.post(url).header(ACCEPT, "application/x-ndjson");
    let mut response = request.body(calls.to_string()).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    let first: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(first["index"], 1, "{first}");
    // The slot's own calls wait for the slow one; the file comes from outside.
    std::fs::write(server.workspace(0).join("go"), "").unwrap();
    let rest: Value = serde_json::from_slice(&response.chunk().await.unwrap().unwrap()).unwrap();
    assert_eq!(rest["index"], 0, "{rest}");
}

#[tokio::test]
async fn a_call_can_be_cancelled_by_its_id() {
    let server = Server::start(&ANY);
    let mark = mark();
    let mut call = bash(&format!("sleep 3000.{mark}"));
    call["execution_id"] = json!("mine");
    call["timeout_s"] = json!(600);
    let running = server.post("/v1/slots/slot_0/execute", call.to_string());
    let cancel = async {
        until("it runs", || !marked(&mark).is_empty()).await;
        let url = format!("http://{}/v1/slots/slot_0/executions/mine", server.authority);
        server.http.delete(url).send().await.unwrap().status()
    };
    let ((_, result), cancelled) = tokio::join!(running, cancel);
    assert_eq!(cancelled, StatusCode::NO_CONTENT);
    let told = (&result["ended"], &result["caused_by"]);
    assert_eq!(told, (&json!("cancelled"), &json!("client")), "{result}");
    until_gone(&mark).await;
}

#[tokio::test]
async fn a_slot_is_used_and_clean_again_after_a_reset() {
    let server = Server::start(&ANY);
    let state = async || server.get("/v1/slots").await["slots"][0]["state"].clone();
    assert_eq!(state().await, "clean");
    server.post("/v1/slots/0/execute", bash("touch x").to_string()).await;
    assert_eq!(state().await, "used");
    let url = format!("http://{}/v1/slots/0/reset", server.authority);
    let reset = server.http.post(url).send().await.unwrap();
    assert_eq!(reset.status(), StatusCode::NO_CONTENT);
    until_within(LIMIT, "it is clean", async || state().await == "clean").await;
    let (_, result) = server.post("/v1/slots/0/execute", bash("ls -A").to_string()).await;
    assert_eq!(result["output"], "");
}

#[tokio::test]
async fn the_tools_are_told_as_functions() {
    let server = Server::start(&ANY);
    let tools = server.get("/v1/tools").await;
    let names: Vec<_> =
        tools.as_array().unwrap().iter().map(|it| &it["function"]["name"]).collect();
    assert_eq!(names, slotmux_protocol::ToolCall::NAMES);
}

#[tokio::test]
async fn output_comes_while_the_command_runs() {
    let server = Server::start(&ANY);
    let command = "echo first; while [ ! -e go ]; do sleep 0.01; done; echo no >&2; echo last";
    let url = format!("http://{}/v1/slots/slot_0/execute", server.authority);
    let request = server.http.post(url).header(ACCEPT, "application/x-ndjson");
    let mut response = request.body(bash(command).to_string()).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&first).unwrap(), json!({ "stdout": "first\n" }));
    std::fs::write(server.workspace(0).join("go"), "").unwrap();
    let rest = response.text().await.unwrap();
    let rest: Vec<Value> = rest.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let (result, output) = rest.split_last().unwrap();
    assert_eq!(result["result"]["output"], "first\nlast\n\n[stderr]\nno\n", "{result}");
    let told =
        |name: &str| -> String { output.iter().filter_map(|line| line[name].as_str()).collect() };
    assert_eq!((told("stdout"), told("stderr")), ("last\n".to_owned(), "no\n".to_owned()));
}

#[tokio::test]
async fn a_refused_call_with_lines_is_one_line_or_a_problem() {
    let server = Server::start(&ANY);
    let lines = server.lines("/v1/slots/slot_0/execute", &bash("exit 4")).await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["result"]["exit_code"], 4);
    let wanted = (422, "unknown_tool".to_owned(), "tool".to_owned());
    let body = r#"{"tool": "python", "args": {}}"#;
    assert_eq!(refused(&server, "/v1/slots/slot_0/execute", body).await, wanted);
}
