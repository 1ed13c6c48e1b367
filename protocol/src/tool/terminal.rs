//! Terminals: a pseudo-terminal with a screen, in a session that lives until the lease ends.

use serde::{Deserialize, Serialize};

/// What to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TerminalAction {
    /// Start it, running `command`, or a shell.
    Start,
    /// Type `keys`; `wait` as well, if it is set.
    SendKeys,
    /// Wait for the shell to be back at its prompt, or for `max_wait_ms`.
    Wait,
    /// The visible screen; with `entire`, the scrollback before it too.
    Capture,
    /// What was printed since the last `read`, or since byte `offset`.
    Read,
    /// The recording since its last `cast`, or since byte `offset`: lines of asciinema's v2 format.
    Cast,
    Resize,
    Stop,
    /// The sessions that there are.
    List,
}

/// One or several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Keys {
    One(String),
    Many(Vec<String>),
}

impl Keys {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminalArgs {
    #[cfg_attr(feature = "openapi", schema(inline))]
    pub action: TerminalAction,
    /// Name of the session; `main` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// For `start`: what to run instead of a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// For `start` and `resize`; 24 and 80 without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cols: Option<u16>,
    /// For `send_keys`: text, or names of keys as tmux has them: `Enter`, `C-c`, `M-x`, `Up`, `F1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(inline))]
    pub keys: Option<Keys>,
    /// `keys` are text, also where they look like a name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub literal: bool,
    /// For `send_keys`: return when what was started is done, as `wait` does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
    /// Wait at least this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_wait_ms: Option<u64>,
    /// Wait at most this long; the call's own time-out without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait_ms: Option<u64>,
    /// For `capture`: with the scrollback.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub entire: bool,
    /// For `read` and `cast`: from this byte of the whole output on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// For `read`, `cast` and `capture`; 100,000 without it, 1,000,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

impl TerminalArgs {
    pub fn new(action: TerminalAction) -> Self {
        Self {
            action,
            session: None,
            command: None,
            rows: None,
            cols: None,
            keys: None,
            literal: false,
            wait: false,
            min_wait_ms: None,
            max_wait_ms: None,
            entire: false,
            offset: None,
            max_bytes: None,
        }
    }
}
