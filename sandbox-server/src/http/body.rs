//! Reading bodies, and refusing them in the words of the atropos wire.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::json;
use slotmux_protocol::atropos::SlotExecute;
use std::time::Duration;
use tokio::time::timeout;

/// The largest body that is taken needs 280 kB/s then.
pub(super) const BODY_WAIT: Duration = Duration::from_mins(1);

/// All of a body, within the limits of size and time; or the answer that says why not.
pub(super) struct Whole(pub(super) Result<Bytes, Response>);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(read(request, state).await.map_err(|fault| match fault {
            Fault::Refused { status, text } => refuse(status, &text),
            Fault::Late => refuse(
                StatusCode::REQUEST_TIMEOUT,
                &format!("the body did not come within {} seconds", BODY_WAIT.as_secs()),
            ),
        })))
    }
}

/// Why there is no body, for either surface to put into its own words.
pub(super) enum Fault {
    Refused { status: StatusCode, text: String },
    Late,
}

pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Fault> {
    match timeout(BODY_WAIT, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => {
            Err(Fault::Refused { status: rejection.status(), text: rejection.body_text() })
        }
        Err(_late) => Err(Fault::Late),
    }
}

/// A batch: an array, and nothing else that serde would take for one.
pub(super) struct Items(pub(super) Vec<SlotExecute>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("a batch is an array of calls: {error}")))
    }
}

/// Not JSON: 400. JSON of another shape: 400 too, with the place; this wire has no 422.
#[expect(clippy::result_large_err, reason = "the error is the answer, and is made once")]
pub(super) fn parse<T: DeserializeOwned>(body: Result<Bytes, Response>) -> Result<T, Response> {
    let body = body?;
    let mut json = serde_json::Deserializer::from_slice(&body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|fault| {
        let path = fault.path().to_string();
        refuse(StatusCode::BAD_REQUEST, &format!("Invalid JSON at `{path}`: {}", fault.inner()))
    })?;
    json.end()
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &format!("Invalid JSON: {error}")))?;
    Ok(value)
}

pub(super) fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "success": false, "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use futures_util::stream::{self, StreamExt as _};

    async fn read(body: Body) -> Result<Bytes, StatusCode> {
        let Ok(Whole(read)) = Whole::from_request(Request::new(body), &()).await;
        read.map_err(|answer| answer.status())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_after_its_time() {
        let drops = || {
            stream::repeat("x").then(async |drop| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, std::io::Error>(drop)
            })
        };
        let few = Body::from_stream(drops().take(50));
        assert_eq!(read(few).await.map(|it| it.len()), Ok(50));
        let begun = tokio::time::Instant::now();
        let endless = Body::from_stream(drops());
        assert_eq!(read(endless).await, Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(begun.elapsed(), BODY_WAIT);
    }
}
