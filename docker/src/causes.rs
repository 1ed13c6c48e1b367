//! Errors as people read them: with what they came of.

use slotmux_backend::Cause;
pub(crate) use slotmux_backend::chain;

/// What a stop or a launch says of a container whose keeper could not remove it.
pub(crate) fn not_removed(why: String) -> Cause {
    format!("it could not be removed: {why}").into()
}
