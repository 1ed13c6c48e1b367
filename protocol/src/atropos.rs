//! The JSON that clients of the Python "atropos" slot pool already speak.
//!
//! Unknown request fields are ignored, absent ones take their defaults; field names and texts are
//! those of that wire.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /execute` and each item of `POST /batch` at a sandbox-server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotExecute {
    pub slot_id: String,
    pub tool: String,
    #[serde(default)]
    pub args: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// Seconds.
    #[serde(default = "default_timeout_s")]
    pub timeout: f64,
}

pub fn default_timeout_s() -> f64 {
    30.0
}

/// `POST /reset` at a sandbox-server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReset {
    pub slot_id: String,
}

/// The answer of a sandbox-server to one call. HTTP 200 also when the tool failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotResult {
    pub success: bool,
    #[serde(default)]
    pub output: String,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub execution_id: Option<String>,
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// `POST /execute` at the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolExecute {
    pub trajectory_id: String,
    pub tool: PoolTool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolTool {
    pub name: String,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub arguments: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uniq_id: Option<String>,
}

/// The answer of the pool to one call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolResult {
    pub success: bool,
    #[serde(default)]
    pub output: String,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: Map<String, Value>,
    #[serde(default)]
    pub uniq_id: Option<String>,
}

/// `POST /release` at the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolRelease {
    pub trajectory_id: String,
    /// Accepted and without effect: every released slot is reset.
    #[serde(default)]
    pub reset_workspace: bool,
}
