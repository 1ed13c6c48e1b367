//! Which of the executables that trajectories require are there.

use super::{
    rollouts::Trajectory,
    target::{Target, Wish},
};
use rustix::fs::{Access, access};
use slotmux_protocol::{BashArgs, CausedBy, Code, Ended, ExecutionId, LeaseId, Problem, ToolCall};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Where a slot looks for executables.
const SLOT_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What was found out so far, of each profile and executable.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    known: Mutex<HashMap<(Option<String>, String), bool>>,
}

impl Presence {
    /// Looks on this machine, where the slots of an embedded pool are.
    pub(crate) fn missing_here(trajectory: &Trajectory) -> Vec<String> {
        trajectory.requires.iter().filter(|name| !is_here(name)).cloned().collect()
    }

    /// Asks in the slot that was acquired.
    pub(crate) async fn missing_there(
        &self,
        trajectory: &Trajectory,
        target: &Target,
        lease: LeaseId,
    ) -> Result<Vec<String>, Problem> {
        let profile = trajectory.profile.as_ref().map(ToString::to_string);
        let unknown: Vec<&String> = trajectory
            .requires
            .iter()
            .filter(|name| self.look(profile.as_ref(), name).is_none())
            .collect();
        if !unknown.is_empty() {
            let missing = ask(target, lease, &unknown).await?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for name in unknown {
                known.insert((profile.clone(), name.clone()), !missing.contains(name));
            }
        }
        let missing =
            trajectory.requires.iter().filter(|it| self.look(profile.as_ref(), it) == Some(false));
        Ok(missing.cloned().collect())
    }

    fn look(&self, profile: Option<&String>, name: &str) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(profile.cloned(), name.to_owned())).copied()
    }
}

fn is_here(name: &str) -> bool {
    SLOT_PATH.iter().any(|dir| {
        let path = Path::new(dir).join(name);
        path.is_file() && access(&path, Access::EXEC_OK).is_ok()
    })
}

async fn ask(target: &Target, lease: LeaseId, names: &[&String]) -> Result<Vec<String>, Problem> {
    let quoted: Vec<String> = names.iter().map(|name| crate::quote::quoted(name)).collect();
    let command = format!(
        "for it in {}; do command -v -- \"$it\" >/dev/null || echo \"$it\"; done",
        quoted.join(" ")
    );
    let wish = Wish {
        tool: ToolCall::Bash(BashArgs::new(command)),
        timeout: None,
        execution_id: execution_id(lease, "requires")?,
    };
    let result = target.call(lease, wish).await?;
    if result.caused_by != CausedBy::Policy || result.ended != Ended::Exited {
        let detail = format!("the slot did not say which executables it has: {}", result.error);
        return Err(Problem::new(Code::Internal, detail));
    }
    Ok(result.output.lines().map(str::to_owned).collect())
}

/// One that no other call of this lease has. Leases have no second life, so nobody has it.
pub(crate) fn execution_id(lease: LeaseId, step: &str) -> Result<ExecutionId, Problem> {
    ExecutionId::new(format!("replay-{lease}-{step}"))
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))
}
