//! Local processes keep the promises of every backend.

use crate::machine::Machine;
use slotmux_backend::{conformance::Harness, conformance_suite};
use slotmux_local::LocalBackend;
use slotmux_protocol::ContainerId;
use std::time::Duration;

const LOOKS_MAX: u32 = 500;
const LOOK_EVERY: Duration = Duration::from_millis(10);

struct Local(Machine);

impl Harness for Local {
    type Backend = LocalBackend;

    async fn backend(&self) -> LocalBackend {
        self.0.backend()
    }

    async fn kill(&self, container: &ContainerId) {
        self.0.kill(container);
    }

    async fn print(&self, _: &ContainerId) -> String {
        "slots are ready".to_owned()
    }

    async fn leftovers(&self) -> Vec<String> {
        // A process that was killed leaves the processor when it comes to it; one that is left
        // behind is still there then.
        for _ in 0..LOOKS_MAX {
            if self.0.processes().is_empty() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let dirs = self.0.container_dirs().into_iter().map(|dir| dir.display().to_string());
        dirs.chain(self.0.processes().into_iter().map(|pid| format!("process {pid}"))).collect()
    }

    fn lifetime_min(&self) -> Duration {
        Duration::from_secs(1)
    }
}

conformance_suite!(Local(Machine::with_script()));
