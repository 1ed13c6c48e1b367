//! Errors as people read them: with what they came of.

use slotmux_backend::Cause;

/// An error with its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a stop or a launch says of a container whose keeper could not remove it.
pub(crate) fn not_removed(why: String) -> Cause {
    format!("it could not be removed: {why}").into()
}
