//! Reading bodies, and refusing them in the words of the atropos wire.

use axum::{
    Json,
    body::Bytes,
    extract::rejection::BytesRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::json;
use slotmux_protocol::atropos::SlotExecute;

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
pub(super) fn parse<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Response> {
    let body = body.map_err(|rejection| refuse(rejection.status(), &rejection.body_text()))?;
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
