//! What the HTTP surfaces have in common: connections, tokens, how a body is read, and how answers
//! look.
//!
//! Invariant: whatever went wrong, the answer is a problem (RFC 9457) with a stable code, and names
//! the field at fault if there is one.

mod body;
mod guard;
mod parse;
mod reply;
mod serve;

pub use body::read_body;
pub use guard::{check_token, no_such_method, no_such_path, unpanicked};
pub use parse::parse;
pub use reply::{Answer, Refusal, json, json_text, lines, ok, wants_lines};
pub use serve::{ServeSettings, serve};
