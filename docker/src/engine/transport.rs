//! How calls get to the engine: over connections that are kept for the next ones.
//!
//! Invariant: a call is sent once. Only one that met a connection that had ended before, and of
//! which nothing was sent, goes out again.

mod pipe;
mod tls;

use super::{CALL_S_MAX, address::Address};
use bollard::{BollardRequest, errors::Error};
use bytes::Bytes;
use futures_util::{TryFutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    http::{HeaderValue, uri::PathAndQuery},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use pipe::Connector;
use std::{
    fmt, io,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::timeout;

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Connections that wait for a call. Streams have their own as long as they last.
const IDLE_MAX: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Of an answer that is read as a whole.
const ANSWER_BYTES_MAX: usize = 256 << 20;

pub(super) struct Transport {
    client: Client<Connector, Body>,
    version: Arc<OnceLock<String>>,
}

impl Transport {
    /// Calls name `version` of the API as soon as it is set.
    pub(super) fn new(address: Address, version: Arc<OnceLock<String>>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(Connector::new(address));
        Self { client, version }
    }

    pub(super) fn call(
        &self,
        mut request: BollardRequest,
    ) -> BoxFuture<'static, Result<Response<Incoming>, Error>> {
        if let Some(version) = self.version.get() {
            match versioned(request.uri(), version) {
                Ok(uri) => *request.uri_mut() = uri,
                Err(error) => return Box::pin(async { Err(error.into()) }),
            }
        }
        // Engines want the alphabet for addresses, and take what they cannot read for nothing.
        for name in ["x-registry-auth", "x-registry-config"] {
            if let Some(value) = request.headers_mut().get_mut(name) {
                *value = for_addresses(value);
                value.set_sensitive(true);
            }
        }
        Box::pin(self.client.request(request.map(BodyExt::boxed_unsync)).map_err(Error::from))
    }
}

impl Transport {
    /// What a `GET` is answered, as a whole.
    pub(super) async fn read(&self, path_and_query: &str) -> Result<Bytes, Error> {
        let uri = Uri::builder().scheme("http").authority("engine").path_and_query(path_and_query);
        let request = Request::get(uri.build()?).body(bollard::body_full(Bytes::new()))?;
        let answer = async {
            let answer = self.call(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| Error::from(io::Error::other(error)))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let said = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
            let message = match said.get("message").and_then(serde_json::Value::as_str) {
                Some(message) => message.to_owned(),
                None => String::from_utf8_lossy(&body).into_owned(),
            };
            Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
        };
        let answer = timeout(Duration::from_secs(CALL_S_MAX), answer).await;
        answer.unwrap_or(Err(Error::RequestTimeoutError))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

fn for_addresses(base64: &HeaderValue) -> HeaderValue {
    let bytes: Vec<u8> = base64
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    // Letters stay letters.
    HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| base64.clone())
}

/// The library leaves it out.
fn versioned(uri: &Uri, version: &str) -> Result<Uri, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let prefix = format!("/v{version}");
    if path.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/')) {
        return Ok(uri.clone());
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{prefix}{path}"))?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_name_the_version_of_the_api_once() {
        for (uri, wanted) in [
            ("http://engine/info", "http://engine/v1.41/info"),
            ("http://engine/events?since=1%2F2", "http://engine/v1.41/events?since=1%2F2"),
            ("http://engine/v1.41/info?a=b", "http://engine/v1.41/info?a=b"),
            ("http://engine/v1.410/info", "http://engine/v1.41/v1.410/info"),
        ] {
            assert_eq!(versioned(&uri.parse().unwrap(), "1.41").unwrap(), wanted);
        }
    }
}
