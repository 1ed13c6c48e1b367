//! Reading a request's body: bounded in size and time.

use axum::{body::Body, extract::Request, http::header::CONTENT_LENGTH};
use bytes::BytesMut;
use http_body_util::BodyExt;
use slotmux_protocol::{Code, Problem};
use std::time::Duration;
use tokio::time::timeout;

/// How long we go on reading what we will not take, so that the client gets to read our answer.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// And how much of it, in times of the limit.
const DRAIN_TIMES: usize = 4;

/// All of a request's body. One that is longer than `limit`, or does not come within `wait`, is
/// a problem.
pub async fn read_body(
    request: Request,
    limit: usize,
    wait: Duration,
) -> Result<BytesMut, Problem> {
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
