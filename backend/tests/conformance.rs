//! The fake keeps the promises that it stands in for.

use slotmux_backend::{
    Address,
    conformance::Harness,
    conformance_suite,
    fake::{FakeBackend, FakeRuntime},
};
use slotmux_protocol::ContainerId;
use std::time::Duration;

struct InMemory(FakeRuntime);

fn fresh() -> InMemory {
    InMemory(FakeRuntime::new(|container| Address {
        authority: "127.0.0.1:9".to_owned(),
        token: format!("token of {container}"),
    }))
}

impl Harness for InMemory {
    type Backend = FakeBackend;

    async fn backend(&self) -> FakeBackend {
        self.0.backend()
    }

    async fn kill(&self, container: &ContainerId) {
        self.0.kill(container);
    }

    async fn print(&self, container: &ContainerId) -> String {
        self.0.print(container, "slots are ready\n");
        "slots are ready".to_owned()
    }

    async fn leftovers(&self) -> Vec<String> {
        self.0.containers().iter().map(ToString::to_string).collect()
    }

    fn lifetime_min(&self) -> Duration {
        Duration::from_millis(1)
    }
}

conformance_suite!(fresh());
