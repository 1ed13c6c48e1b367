//! How each limit of a slot is enforced here, in words for people: `/health` and the doctor.

use crate::{cgroup::Cgroups, isolate::RootKind};
use serde::Serialize;
use slotmux_protocol::Isolation;

/// Each says what enforces it, the first that does coming first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitedBy {
    pub memory: String,
    pub cpu: String,
    pub cpu_time: String,
    pub processes: String,
    pub disk: String,
    pub tmp: String,
    pub open_files: String,
    pub file_size: String,
    pub output: String,
    pub wall_time: String,
}

const SUPERVISION: &str = "supervision";
const RLIMIT: &str = "rlimit";
const NOTHING: &str = "nothing";

impl LimitedBy {
    pub(crate) fn new(cgroups: &Cgroups, isolation: Option<Isolation>, root: RootKind) -> Self {
        let or = |by: Option<&str>, otherwise: &str| by.unwrap_or(otherwise).to_owned();
        let tmp = match isolation {
            Some(Isolation::Namespaces) => "tmpfs",
            // It is a directory on the disk.
            _ => SUPERVISION,
        };
        Self {
            memory: or(cgroups.memory_by(), SUPERVISION),
            cpu: or(cgroups.cpu_by(), NOTHING),
            cpu_time: format!("{}, {RLIMIT}", or(cgroups.cpu_time_by(), SUPERVISION)),
            processes: match cgroups.pids_by() {
                // Of a shared user the kernel counts everybody's.
                Some(by) if isolation.is_some_and(|it| it <= Isolation::Landlock) => by.to_owned(),
                // The kernel holds no limit of processes against root.
                Some(by) if root.is_in_parts() => by.to_owned(),
                None if root.is_in_parts() => SUPERVISION.to_owned(),
                Some(by) => format!("{by}, {RLIMIT}"),
                None if isolation == Some(Isolation::None)
                    && rustix::process::geteuid().is_root() =>
                {
                    NOTHING.to_owned()
                }
                None => RLIMIT.to_owned(),
            },
            disk: SUPERVISION.to_owned(),
            tmp: tmp.to_owned(),
            open_files: RLIMIT.to_owned(),
            file_size: RLIMIT.to_owned(),
            output: SUPERVISION.to_owned(),
            wall_time: SUPERVISION.to_owned(),
        }
    }

    /// Name and enforcement of each, for a table.
    pub fn rows(&self) -> [(&'static str, &str); 10] {
        [
            ("memory", &self.memory),
            ("cpu", &self.cpu),
            ("cpu_time", &self.cpu_time),
            ("processes", &self.processes),
            ("disk", &self.disk),
            ("tmp", &self.tmp),
            ("open_files", &self.open_files),
            ("file_size", &self.file_size),
            ("output", &self.output),
            ("wall_time", &self.wall_time),
        ]
    }
}
