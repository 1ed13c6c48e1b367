//! What the HTTP surfaces have in common: how a JSON body is read, and how answers look.
//!
//! Invariant: whatever went wrong, the answer is a problem (RFC 9457) with a stable code, and names
//! the field at fault if there is one.

mod parse;
mod reply;

pub use parse::parse;
pub use reply::{Answer, Refusal, json, json_text, lines, ok, wants_lines};
