//! The local backend with real sandbox-servers keeps the promises of every backend.

use crate::{machine::Machine, run::BINARY};
use slotmux_backend::{conformance::Harness, conformance_suite};
use slotmux_local::LocalBackend;
use slotmux_protocol::ContainerId;
use std::{
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
        dirs.chain(processes).collect()
    }

    fn lifetime_min(&self) -> Duration {
        Duration::from_secs(1)
    }
}

conformance_suite!(real());
