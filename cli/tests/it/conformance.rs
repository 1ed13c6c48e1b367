//! The local backend with real sandbox-servers keeps the promises of every backend.

use crate::{machine::Machine, run::BINARY};
use slotmux_backend::{conformance::Harness, conformance_suite};
use slotmux_local::LocalBackend;
use slotmux_protocol::ContainerId;
use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Names of containers are unique on a machine, and the suite uses the same ones again and again.
static NAMES: Mutex<()> = Mutex::new(());

struct Real {
    machine: Machine,
    _names: MutexGuard<'static, ()>,
}

fn real() -> Real {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    Real { machine: Machine::new(BINARY), _names: names }
}

impl Harness for Real {
    type Backend = LocalBackend;

    async fn backend(&self) -> LocalBackend {
        self.machine.backend()
    }

    async fn kill(&self, container: &ContainerId) {
        self.machine.kill(container);
    }

    async fn print(&self, _: &ContainerId) -> String {
        "serving".to_owned()
    }

    async fn leftovers(&self) -> Vec<String> {
        let dirs = self.machine.container_dirs().into_iter().map(|dir| dir.display().to_string());
        let processes = self.machine.processes().into_iter().map(|pid| format!("process {pid}"));
        dirs.chain(processes).chain(cgroups(Path::new("/sys/fs/cgroup"), 0)).collect()
    }

    fn lifetime_min(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Those of containers that the suite launches. Other tests have theirs at the same time.
fn cgroups(dir: &Path, depth: usize) -> Vec<String> {
    const LAUNCHED: [&str; 12] =
        ["one", "two", "own", "other", "kept", "killed", "a", "b", "c", "d", "e", "f"];
    // Any of them may go away while we look.
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| depth < 8 && entry.file_type().is_ok_and(|it| it.is_dir()));
    dirs.flat_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let ours = name.strip_prefix("slotmux-").is_some_and(|it| LAUNCHED.contains(&it));
        let mut found = cgroups(&entry.path(), depth + 1);
        found.extend(ours.then(|| entry.path().display().to_string()));
        found
    })
    .collect()
}

conformance_suite!(real());
