//! One HTTP/1.1 connection, kept open: no pool, no redirects, nothing that would be measured too.

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Where to, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Target {
    authority: String,
    token: Option<String>,
}

impl Target {
    /// Loads are for loopback and test networks: `http` only.
    pub(super) fn new(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| anyhow!("--url begins with http://, this is `{url}`"))?;
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains('/') {
            bail!("--url is http://HOST:PORT, this is `{url}`");
        }
        Ok(Self { authority: authority.to_owned(), token })
    }
}

pub(super) struct Connection {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&target.authority)
            .await
            .with_context(|| format!("connect to {}", target.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { target: target.clone(), sender })
    }

    /// The body of a good answer; anything but 2xx is an error that quotes it.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.target.authority)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.target.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let quoted: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        if status == StatusCode::NOT_FOUND {
            bail!("{path}: not found; does the server speak this --wire? It said: {quoted}");
        }
        bail!("{path}: {status}: {quoted}")
    }

    pub(super) async fn json<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        let answer = self.send(method, path, Bytes::from(serde_json::to_vec(body)?)).await?;
        serde_json::from_slice(&answer).with_context(|| format!("read the answer of {path}"))
    }
}
