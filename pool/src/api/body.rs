//! A request's body as JSON, with the field at fault named.

use super::Api;
use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use serde::de::DeserializeOwned;
use slotmux_edge::{Refusal, parse, read_body};
use slotmux_protocol::Problem;

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
    read_body(request, api.settings.limits.body_bytes_max, api.settings.body_wait).await
}
