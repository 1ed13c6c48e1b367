//! What a client may do here: everything, or one slot for as long as it is in the same hands.
//!
//! The middleware of [`crate::http`] finds it out once for each request; handlers ask for it as an
//! argument. Invariant: a slot token opens no path but those of its own slot, and those whose
//! handlers compare the slots that the body names.

mod tokens;

use crate::slot::{Scope, Slot, Stay};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use slotmux_protocol::{Code, Problem, SlotIndex};
pub(crate) use tokens::{Given, Tokens};

/// An argument of every handler behind the middleware that has to do with slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The main token, or no token where none is needed.
    All,
    /// A token for one slot, which is in the hands that the token was made for.
    Slot(SlotIndex, Stay),
}

/// Paths whose bodies name slots: their handlers ask [`Access::scope`] about each.
const COMPARED_BY_HANDLERS: [&str; 6] =
    ["/execute", "/batch", "/v1/batch", "/artifacts/read", "/artifacts/list", "/artifacts/archive"];

impl Access {
    /// By which right a call of `slot` is made.
    pub(crate) fn scope(self, slot: SlotIndex) -> Result<Scope, Problem> {
        match self {
            Self::All => Ok(Scope::Standalone),
            Self::Slot(own, stay) if own == slot => Ok(Scope::Stay(stay)),
            Self::Slot(own, _) => Err(Problem::new(
                Code::Forbidden,
                format!("this token is for {own}, and {slot} was called"),
            )),
        }
    }

    /// Whether a path may be called at all.
    pub(crate) fn permits(self, method: &Method, path: &str) -> Result<(), Problem> {
        let Self::Slot(own, _) = self else { return Ok(()) };
        if COMPARED_BY_HANDLERS.contains(&path) || (method == Method::GET && path == "/v1/tools") {
            return Ok(());
        }
        let refused = || {
            let detail = format!("this token is for calls of {own}, and this is not one");
            Err(Problem::new(Code::Forbidden, detail))
        };
        let Some(rest) = path.strip_prefix("/v1/slots/") else { return refused() };
        let mut parts = rest.split('/');
        let slot = parts.next().unwrap_or_default();
        let named = SlotIndex::parse(slot).or_else(|| slot.parse().ok().map(SlotIndex));
        if let Some(slot) = named.filter(|slot| *slot != own) {
            return self.scope(slot).map(|_| ());
        }
        // Paths are compared as they came: one that is written otherwise (`%65xecute`) is not known
        // to be harmless.
        let known = matches!(
            (method, parts.next()),
            (&Method::POST, Some("execute" | "snapshot"))
                | (&Method::GET | &Method::HEAD | &Method::PUT, Some("files"))
                | (&Method::DELETE, Some("executions"))
        );
        if known && named.is_some() && !path.contains('%') { Ok(()) } else { refused() }
    }
}

impl<S: Sync> FromRequestParts<S> for Access {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts.extensions.get().copied().ok_or_else(|| {
            // A route was put beside the middleware: it must not be open by that mistake.
            tracing::error!(path = parts.uri.path(), "a path without its middleware");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }
}

/// `POST /v1/slots/{slot}/token`: only for [`Access::All`], which the middleware sees to.
pub(crate) fn grant(tokens: &Tokens, slot: &Slot) -> Result<Response, Problem> {
    let stay = slot.stay()?;
    Ok(Json(json!({
        "token": tokens.issue(slot.index, stay),
        "slot": slot.index.to_string(),
        "epoch": stay.epoch,
        "expires": "when the slot is reset, given to another lease, or the server ends",
    }))
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(method: Method, path: &str) -> bool {
        Access::Slot(SlotIndex(3), Stay { round: 1, epoch: None }).permits(&method, path).is_ok()
    }

    #[test]
    fn a_slot_token_opens_its_own_slot_and_nothing_else() {
        for path in ["/execute", "/batch", "/v1/batch", "/v1/slots/slot_3/execute"] {
            assert!(permits(Method::POST, path), "{path}");
        }
        assert!(permits(Method::POST, "/v1/slots/3/execute"));
        assert!(permits(Method::GET, "/v1/slots/slot_3/files"));
        assert!(permits(Method::PUT, "/v1/slots/slot_3/files"));
        assert!(!permits(Method::POST, "/v1/slots/slot_3/files"));
        assert!(!permits(Method::POST, "/v1/slots/slot_3/whatever-comes"));
        assert!(permits(Method::GET, "/v1/tools"));
        assert!(permits(Method::DELETE, "/v1/slots/slot_3/executions/e"));
        for path in [
            "/reset",
            "/slots",
            "/v1/slots",
            "/v1/link",
            "/v1/snapshots",
            "/v1/slots/slot_3",
            "/v1/slots/slot_4/execute",
            "/v1/slots/slot_33/execute",
            "/v1/slots/slot_3/reset",
            "/v1/slots/3/reset",
            "/v1/slots/slot_3/%72eset",
            "/v1/slots/slot%5f4/execute",
            "/v1/slots/+3/execute",
            "/v1/slots//execute",
            "/v1/slots/slot_3/fork",
            "/v1/slots/slot_3/token",
            "/v1/slots/slot_x/execute",
            "//execute",
        ] {
            // As a number `+3` is 3 to Rust, and so it is to the handler.
            let own = path == "/v1/slots/+3/execute";
            assert_eq!(permits(Method::POST, path), own, "{path}");
        }
        assert!(!permits(Method::DELETE, "/v1/slots/slot_3/snapshots/x"));
    }

    #[test]
    fn the_main_token_opens_everything() {
        for path in ["/reset", "/v1/slots/slot_3/token", "/v1/link"] {
            assert!(Access::All.permits(&Method::POST, path).is_ok(), "{path}");
        }
        assert_eq!(Access::All.scope(SlotIndex(0)).unwrap(), Scope::Standalone);
    }

    #[test]
    fn calls_of_another_slot_are_refused_by_name() {
        let stay = Stay { round: 1, epoch: None };
        let access = Access::Slot(SlotIndex(3), stay);
        assert_eq!(access.scope(SlotIndex(3)).unwrap(), Scope::Stay(stay));
        let problem = access.scope(SlotIndex(4)).unwrap_err();
        assert_eq!(problem.code, Code::Forbidden);
        assert!(problem.detail.contains("slot_3") && problem.detail.contains("slot_4"));
    }
}
