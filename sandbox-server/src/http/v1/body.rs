//! Reading a JSON body: bounded in size and time, and with the field at fault named.

use crate::http::body::{BODY_WAIT, Fault, read};
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use slotmux_edge::{Refusal, parse};
use slotmux_protocol::{Code, Problem};

/// Its content type is not looked at.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = read(request, state).await.map_err(|fault| match fault {
            Fault::Late => {
                let wait = BODY_WAIT.as_secs();
                let detail = format!("the body did not come whole within {wait} s");
                Problem::new(Code::Malformed, detail)
            }
            Fault::Refused { status, text } if status.as_u16() == 413 => {
                Problem::new(Code::TooLarge, format!("{text}; send less at once"))
            }
            Fault::Refused { text, .. } => Problem::new(Code::Malformed, text),
        })?;
        Ok(Self(parse(&bytes)?))
    }
}
