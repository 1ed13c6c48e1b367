//! A Docker engine keeps the promises of every backend.

use crate::house::{House, docker};
use slotmux_backend::{conformance::Harness, conformance_suite};
use slotmux_docker::DockerBackend;
use slotmux_protocol::ContainerId;
use std::time::Duration;

struct Real(House);

impl Harness for Real {
    type Backend = DockerBackend;

    async fn backend(&self) -> DockerBackend {
        self.0.backend()
    }

    async fn kill(&self, container: &ContainerId) {
        docker(&["kill", &self.0.id(container)]).expect("kill");
    }

    async fn print(&self, _: &ContainerId) -> String {
        "serving".to_owned()
    }

    async fn leftovers(&self) -> Vec<String> {
        self.0.leftovers()
    }

    fn lifetime_min(&self) -> Duration {
        Duration::from_secs(1)
    }
}

conformance_suite!(match House::open("conformance") {
    Some(house) => Real(house),
    None => return,
});
