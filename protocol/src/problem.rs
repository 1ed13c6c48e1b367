//! Errors at the HTTP edge: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $status:literal;)*) => {
        /// What went wrong, for programs. Stable across releases; see `docs/problems.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not UTF-8.
    Malformed, "malformed", 400;
    /// A token is required and none came.
    Unauthenticated, "unauthenticated", 401;
    /// The token is not the right one.
    Forbidden, "forbidden", 403;
    NotFound, "not_found", 404;
    MethodNotAllowed, "method_not_allowed", 405;
    UnknownLease, "unknown_lease", 404;
    UnknownSlot, "unknown_slot", 404;
    UnknownProfile, "unknown_profile", 404;
    UnknownJob, "unknown_job", 404;
    UnknownTool, "unknown_tool", 422;
    /// JSON, but not what this call takes; `field` says where.
    Invalid, "invalid", 422;
    /// The call carries an epoch that its slot is not open for: the lease is over.
    StaleEpoch, "stale_epoch", 409;
    /// The trajectory holds a lease of another kind already.
    AlreadyHeld, "already_held", 409;
    /// A newer acquire of the same trajectory took the place of this one.
    Superseded, "superseded", 409;
    /// The same execution id came with another call.
    ExecutionIdReused, "execution_id_reused", 409;
    /// The same job id came with another job.
    JobIdReused, "job_id_reused", 409;
    /// The job is not done yet.
    JobNotDone, "job_not_done", 409;
    /// The lease was taken away; `detail` says why.
    LeaseRevoked, "lease_revoked", 410;
    LeaseExpired, "lease_expired", 410;
    LeaseReleased, "lease_released", 410;
    /// The job was done, and what it came to is no longer kept.
    JobDropped, "job_dropped", 410;
    TooLarge, "too_large", 413;
    /// Too many calls or requests wait already.
    QueueFull, "queue_full", 429;
    /// No slot became free before the deadline.
    AcquireTimeout, "acquire_timeout", 503;
    /// No container can be started, and waiting does not mend it; `detail` says why.
    LaunchFailed, "launch_failed", 503;
    /// More slots at once than the profile can ever have.
    NeverEnough, "never_enough", 422;
    /// The container does not answer at the moment; the call was not run.
    ContainerUnreachable, "container_unreachable", 503;
    /// The slot cannot run anything; it is being replaced.
    SlotBroken, "slot_broken", 503;
    /// Something runs in the slot that would have to be ended for this.
    SlotBusy, "slot_busy", 409;
    /// No room is left for it in the container.
    StorageFull, "storage_full", 507;
    /// There is no snapshot of this id in the container.
    UnknownSnapshot, "unknown_snapshot", 404;
    /// There is no shell in the container.
    NoShell, "no_shell", 503;
    /// The isolation that was asked for cannot be had; nothing was run.
    IsolationUnavailable, "isolation_unavailable", 503;
    /// The journal cannot be written, so no lease can be promised.
    JournalUnavailable, "journal_unavailable", 503;
    ShuttingDown, "shutting_down", 503;
    Internal, "internal", 500;
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal. `application/problem+json` at the HTTP edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail} ({code})")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    #[serde(rename = "type", default)]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: Code,
    /// What was wrong and what to do, in a sentence.
    pub detail: String,
    /// The part of the request that is at fault, such as `calls[3].args.command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whose fault it is; a refusal is the infrastructure's unless the request itself was wrong.
    pub caused_by: crate::CausedBy,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://slotmux.dev/problems/{code}"),
            title: code.as_str().replace('_', " "),
            status: code.status(),
            code,
            detail: detail.into(),
            field: None,
            caused_by: code.caused_by(),
        }
    }

    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl Code {
    fn caused_by(self) -> crate::CausedBy {
        match self {
            Self::LeaseRevoked => crate::CausedBy::Infra,
            _ if self.status() < 500 => crate::CausedBy::Client,
            _ => crate::CausedBy::Infra,
        }
    }
}

impl From<crate::ArgsFault> for Problem {
    fn from(fault: crate::ArgsFault) -> Self {
        match &fault {
            crate::ArgsFault::UnknownTool { .. } => {
                Self::new(Code::UnknownTool, fault.to_string()).at("tool")
            }
            crate::ArgsFault::Field { field, message } => {
                Self::new(Code::Invalid, message.clone()).at(field.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_spelling_is_the_documented_one() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((400..600).contains(&code.status()));
        }
    }
}
