//! A pool that runs elsewhere, by its HTTP API.

use crate::fault::{Chain, Fault};
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header::AUTHORIZATION};
use serde::{Serialize, de::DeserializeOwned};
use slotmux_protocol::{
    Code, LeaseId, Problem, ToolResult,
    v1::{AcquireRequest, AcquireResponse, ExecuteRequest, Lease, RenewRequest, Seconds, Status},
};
use std::{net::IpAddr, time::Duration};

/// An answer larger than this is none of ours.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What a pool may take beyond what the request itself asks for.
const SLACK: Duration = Duration::from_mins(1);

/// What a call gets that names no time of its own.
const DEFAULT_WAIT_S: u64 = 30;

#[derive(Debug, Clone, Args)]
pub(crate) struct ClientOptions {
    /// Where the pool answers
    #[arg(long, env = "SLOTMUX_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,

    /// The pool's token
    #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct PoolClient {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The pool answered, and refuses.
    #[error(transparent)]
    Refused(#[from] Box<Problem>),
    /// Whether the pool heard us is not known.
    #[error("no answer from {url}")]
    Unreachable { url: Url, source: reqwest::Error },
    #[error("{url} is no Slotmux pool: it answered {what}")]
    Stranger { url: Url, what: String },
}

impl PoolClient {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Fault> {
        let base = parse_url(&options.url)?;
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT_MAX);
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Fault::because("make an HTTP client", &error))?;
        Ok(Self { http, base, token: options.token.clone() })
    }

    pub(crate) async fn acquire(
        &self,
        request: &AcquireRequest,
    ) -> Result<Vec<Lease>, ClientError> {
        let wait = span(request.wait_s);
        let answer: AcquireResponse =
            self.ask(self.post(&["v1", "leases"], request).timeout(wait)).await?;
        Ok(answer.leases)
    }

    pub(crate) async fn execute(
        &self,
        lease: LeaseId,
        request: &ExecuteRequest,
    ) -> Result<ToolResult, ClientError> {
        let wait = span(request.timeout_s);
        let path = ["v1", "leases", &lease.to_string(), "execute"];
        self.ask(self.post(&path, request).timeout(wait)).await
    }

    pub(crate) async fn renew(
        &self,
        lease: LeaseId,
        request: &RenewRequest,
    ) -> Result<Lease, ClientError> {
        let path = ["v1", "leases", &lease.to_string(), "renew"];
        self.ask(self.post(&path, request).timeout(SLACK)).await
    }

    pub(crate) async fn release(&self, lease: LeaseId) -> Result<(), ClientError> {
        let path = ["v1", "leases", &lease.to_string()];
        self.answer(self.request(Method::DELETE, &path).timeout(SLACK)).await.map(drop)
    }

    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.ask(self.request(Method::GET, &["v1", "status"]).timeout(SLACK)).await
    }

    fn post(&self, path: &[&str], body: &impl Serialize) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let (status, body) = self.answer(request).await?;
        serde_json::from_slice(&body).map_err(|error| self.stranger(status, &error.to_string()))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let unreachable = |source| ClientError::Unreachable { url: self.base.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = self.body(response).await?;
        if status.is_success() {
            return Ok((status, body));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Box::new(problem).into()),
            Err(_) => Err(self.stranger(status, "no problem details")),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let unreachable = |source| ClientError::Unreachable { url: self.base.clone(), source };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.stranger(response.status(), "more than 64 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn stranger(&self, status: StatusCode, what: &str) -> ClientError {
        ClientError::Stranger { url: self.base.clone(), what: format!("{status} with {what}") }
    }
}

impl ClientError {
    pub(crate) fn into_fault(self, doing: &str) -> Fault {
        match self {
            Self::Refused(problem) => {
                let fault = Fault::failed(format!("{doing}: {problem}"));
                match problem.code {
                    Code::Unauthenticated | Code::Forbidden => {
                        fault.hint("give the pool's token with --token or SLOTMUX_TOKEN")
                    }
                    Code::UnknownLease => fault.hint("`slotmux acquire` prints the id of a lease"),
                    _ => fault,
                }
            }
            Self::Unreachable { ref url, .. } => {
                let hint = format!(
                    "is a pool running there? `slotmux serve` starts one; it was to be at {url}"
                );
                Fault::failed(format!("{doing}: {}", Chain(&self))).hint(hint)
            }
            Self::Stranger { .. } => Fault::failed(format!("{doing}: {self}"))
                .hint("give the address of a pool with --url or SLOTMUX_URL"),
        }
    }
}

fn parse_url(text: &str) -> Result<Url, Fault> {
    let example = "an example is http://127.0.0.1:8080";
    let url = Url::parse(text)
        .map_err(|error| Fault::usage(format!("`{text}` is no URL: {error}")).hint(example))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "https" => Err(Fault::usage(format!("`{text}`: this client speaks plain HTTP only"))
            .hint("go through a TLS-terminating proxy or an ssh tunnel")),
        _ => Err(Fault::usage(format!("`{text}` is no HTTP URL")).hint(example)),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn span(asked: Option<Seconds>) -> Duration {
    asked.map_or(Duration::from_secs(DEFAULT_WAIT_S), |it| Duration::from_millis(it.as_millis()))
        + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_checked_before_anything_is_sent() {
        for good in ["http://127.0.0.1:8080", "http://pool.example/slotmux/"] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:8080", "https://pool", "ftp://pool", "pool", ""] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
        }
    }
}
