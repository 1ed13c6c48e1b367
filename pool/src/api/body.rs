//! Reading a request's body: bounded in size and time, and with the field at fault named.

use super::Api;
use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::CONTENT_LENGTH,
};
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use slotmux_edge::{Refusal, parse};
use slotmux_protocol::{Code, Problem};
use std::time::Duration;
use tokio::time::timeout;

/// How long we go on reading what we will not take, so that the client gets to read our answer.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// And how much of it, in times of the limit.
const DRAIN_TIMES: usize = 4;

/// A JSON body. Its content type is not looked at.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        Ok(Self(parse(&read(request, api).await?)?))
    }
}

/// Like [`Json`], for bodies that may be left out.
pub(super) struct MaybeJson<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for MaybeJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let bytes = read(request, api).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse(&bytes)?))
    }
}

async fn read(request: Request, api: &Api) -> Result<BytesMut, Problem> {
    let limit = api.settings.limits.body_bytes_max;
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    let mut body = request.into_body();
    if announced > limit {
        drain(&mut body, limit).await;
        return Err(too_large(limit));
    }
    let wait = api.settings.body_wait;
    let Ok(bytes) = timeout(wait, collect(&mut body, announced, limit)).await else {
        return Err(Problem::new(
            Code::Malformed,
            format!("the body did not come whole within {} s", wait.as_secs()),
        ));
    };
    if let Some(bytes) = bytes? {
        return Ok(bytes);
    }
    drain(&mut body, limit).await;
    Err(too_large(limit))
}

/// `None` when it is over the limit.
async fn collect(
    body: &mut Body,
    announced: usize,
    limit: usize,
) -> Result<Option<BytesMut>, Problem> {
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Problem::new(Code::Malformed, format!("read the body: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(Some(bytes))
}

async fn drain(body: &mut Body, limit: usize) {
    let rest = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, bytes::Bytes::len);
            if seen > limit.saturating_mul(DRAIN_TIMES) {
                break;
            }
        }
    };
    // However it ends, the answer is the same.
    let _ = timeout(DRAIN_WAIT, rest).await;
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("a body has at most {limit} bytes; send less at once"))
}
