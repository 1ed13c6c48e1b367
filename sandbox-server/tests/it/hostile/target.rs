//! A server under attack: on this machine or in a container, the attacks are the same.

use crate::{
    http::bash,
    server::{LIMIT, Server},
};
use serde_json::{Value, json};
use slotmux_protocol::atropos::SlotResult;
use std::{path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

pub(crate) struct Target {
    pub(crate) name: String,
    /// Of the ladder.
    pub(crate) isolation: String,
    /// Of the server, as this machine counts.
    pub(crate) pid: i32,
    pub(crate) authority: String,
    pub(crate) token: Option<String>,
    pub(crate) http: reqwest::Client,
    /// As the server sees it.
    pub(crate) data_dir: PathBuf,
    /// As this machine sees it.
    pub(crate) log: PathBuf,
    /// This executable, as slots see it. Absent where it would not run.
    pub(crate) probe: Option<PathBuf>,
    /// No cgroup counts a slot's memory.
    pub(crate) supervised: bool,
    /// Slots are root in the whole image.
    pub(crate) image: bool,
}

impl Target {
    pub(crate) async fn of(server: &Server) -> Self {
        let health = server.get("/health").await;
        Self {
            name: server.rung.name.to_owned(),
            isolation: health["isolation"].as_str().unwrap_or_default().to_owned(),
            pid: server.pid().as_raw_nonzero().get(),
            authority: server.authority.clone(),
            token: server.token.clone(),
            http: server.http.clone(),
            data_dir: server.data_dir(),
            log: server.dir.path().join("log"),
            probe: Some(server.dir.path().join("probe/probe")),
            supervised: health["limits_by"]["memory"] == "supervision",
            image: health["root"] == "image",
        }
    }

    pub(crate) fn port(&self) -> &str {
        self.authority.rsplit(':').next().unwrap_or_default()
    }

    /// Status and body, whatever they are; an error where no answer came in time.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Result<(u16, Value), String> {
        let mut request = self.http.post(format!("http://{}{path}", self.authority)).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = async {
            let response = request.send().await.map_err(|error| format!("{path}: {error:?}"))?;
            let status = response.status().as_u16();
            let text = response.text().await.map_err(|error| format!("{path}: {error:?}"))?;
            let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
            Ok((status, json))
        };
        timeout(LIMIT * 5, answer).await.map_err(|_| format!("{path} is not answered"))?
    }

    pub(crate) async fn slots(&self) -> Result<Value, String> {
        let mut request = self.http.get(format!("http://{}/slots", self.authority));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let text = response.text().await.map_err(|error| format!("{error:?}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |it| it.len())
    }

    pub(crate) async fn call(&self, call: Value) -> Result<SlotResult, String> {
        let (status, body) = self.post("/execute", call.to_string().into_bytes()).await?;
        match serde_json::from_value(body.clone()) {
            Ok(result) if status == 200 => Ok(result),
            _ => Err(format!("{status}: {body}")),
        }
    }

    pub(crate) async fn bash(&self, slot: u16, command: &str) -> Result<SlotResult, String> {
        self.call(bash(slot, command)).await
    }

    /// What a command prints that has to go well.
    pub(crate) async fn output(&self, slot: u16, command: &str) -> Result<String, String> {
        let result = self.bash(slot, command).await?;
        if result.success { Ok(result.output) } else { Err(format!("`{command}`: {result:?}")) }
    }

    pub(crate) async fn reset(&self, slot: u16) -> Result<(), String> {
        let body = json!({ "slot_id": format!("slot_{slot}") }).to_string();
        let (status, body) = self.post("/reset", body.into_bytes()).await?;
        ensure(body["success"] == true, || format!("the reset failed: {status} {body}"))
    }

    /// A line of the head of a request, where a token is needed.
    pub(crate) fn authorization(&self) -> String {
        let line = self.token.as_ref().map(|it| format!("authorization: Bearer {it}\r\n"));
        line.unwrap_or_default()
    }

    pub(crate) async fn connect(&self) -> Result<TcpStream, String> {
        let connected = timeout(LIMIT, TcpStream::connect(&*self.authority)).await;
        connected.map_err(|_| "not connected in time".to_owned())?.map_err(|it| it.to_string())
    }

    /// Sends bytes and takes what comes until the server closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Result<String, String> {
        let mut stream = self.connect().await?;
        // It may be refused while it is still being sent.
        let _ = stream.write_all(bytes).await;
        read_to_end(stream).await
    }

    /// A request's head and body on a connection that ends with the answer.
    pub(crate) fn closing_post(&self, path: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\n{}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.authorization(),
            body.len()
        )
        .into_bytes()
    }
}

pub(crate) async fn read_to_end(mut stream: TcpStream) -> Result<String, String> {
    let mut bytes = Vec::new();
    // A reset is an end as well. Nobody is waited for longer than a head may take.
    match timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => Err(format!("neither answered nor closed: {bytes:?}")),
    }
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
