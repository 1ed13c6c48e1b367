//! What `slotmux doctor` says of this backend.

use crate::{LocalSettings, process::Process};
use rustix::fs::{Access, access};
use slotmux_backend::Diagnosis;
use std::path::Path;

pub(crate) fn look(settings: &LocalSettings) -> Diagnosis {
    let program = match access(&settings.program, Access::EXEC_OK) {
        Ok(()) => Ok(format!("runs `{}`", settings.program.display())),
        Err(error) => Err(format!("cannot run `{}`: {error}", settings.program.display())),
    };
    let pidfd = match Process::child(std::process::id()) {
        Ok(_) => Ok("the kernel has pidfds".to_owned()),
        Err(error) => Err(format!("no pidfds (Linux 5.3 and later have them): {error}")),
    };
    let looked_at = [program, state_dir(&settings.state_dir), pidfd];
    Diagnosis {
        usable: looked_at.iter().all(Result::is_ok),
        findings: looked_at.into_iter().map(|it| it.unwrap_or_else(|why| why)).collect(),
    }
}

/// What is missing is made when the first container starts, so its parent is looked at.
fn state_dir(path: &Path) -> Result<String, String> {
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(path);
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(format!("state directory `{}` can be written", path.display())),
        Err(error) => Err(format!(
            "state directory `{}` cannot be written (`{}`: {error})",
            path.display(),
            existing.display()
        )),
    }
}
