//! Commands: one shell for each call, or one shell for many.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BashArgs {
    /// Run as `bash -c command` in the workspace.
    pub command: String,
    /// What the command reads on its standard input; without it, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Variables added to the environment of this command only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Directory to run in, relative to the workspace or absolute; without it, the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

impl BashArgs {
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), ..Self::default() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BashStatefulArgs {
    /// Run in the slot's persistent shell: directory, variables, functions and jobs stay.
    pub command: String,
    /// Begin with a new shell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}
