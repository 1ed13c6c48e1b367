//! A container as the engine describes it, in our own words.

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone)]
pub struct Found {
    pub id: String,
    pub state: State,
    /// On the engine's machine, while it runs: of its first process.
    pub pid: Option<u32>,
    pub labels: HashMap<String, String>,
    pub env: Vec<String>,
    /// Its address on each network.
    pub networks: BTreeMap<String, String>,
    /// By the directory where each is.
    pub volumes: BTreeMap<String, String>,
    /// `8080/tcp`: the address and port of the engine's machine.
    pub ports: BTreeMap<String, (String, u16)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    NotStarted,
    /// Paused counts as running.
    Running,
    Ended(Ended),
    /// Somebody removes it at this moment.
    Leaving,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: i64,
    /// Some process in there was killed for memory.
    pub out_of_memory: bool,
    /// Why it did not start, in the engine's words.
    pub error: String,
}

impl Found {
    /// Podman has states of its own, of which the library would not read anything.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut found: serde_json::Value = serde_json::from_slice(bytes)?;
        if let Some(status) = found.pointer_mut("/State/Status") {
            match status.as_str() {
                Some("stopped") => *status = "exited".into(),
                Some("configured" | "initialized") => *status = "created".into(),
                Some(_) | None => {}
            }
        }
        serde_json::from_value(found).map(Self::read)
    }

    fn read(found: ContainerInspectResponse) -> Self {
        let (labels, env) = found.config.map_or_else(Default::default, |config| {
            (config.labels.unwrap_or_default(), config.env.unwrap_or_default())
        });
        let (networks, ports) = found.network_settings.map_or_else(Default::default, |settings| {
            (settings.networks.unwrap_or_default(), settings.ports.unwrap_or_default())
        });
        let networks = networks.into_iter().filter_map(|(name, endpoint)| {
            let v4 = endpoint.ip_address.filter(|it| !it.is_empty());
            let address = v4.or(endpoint.global_ipv6_address.filter(|it| !it.is_empty()))?;
            Some((name, address))
        });
        let ports = ports.into_iter().filter_map(|(port, bindings)| {
            let binding = bindings?.into_iter().next()?;
            let host_port = binding.host_port?.parse().ok()?;
            Some((port, (binding.host_ip.unwrap_or_default(), host_port)))
        });
        let volumes = found.mounts.unwrap_or_default().into_iter().filter_map(|mount| {
            let name = mount.name.filter(|it| !it.is_empty())?;
            Some((mount.destination?, name))
        });
        let pid = found.state.as_ref().and_then(|state| state.pid);
        Self {
            id: found.id.unwrap_or_default(),
            // What does not run has the number 0.
            pid: pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            volumes: volumes.collect(),
            state: found.state.map_or(State::Leaving, state),
            labels,
            env,
            networks: networks.collect(),
            ports: ports.collect(),
        }
    }
}

fn state(state: ContainerState) -> State {
    use ContainerStateStatusEnum as Status;
    match state.status {
        Some(Status::CREATED) => State::NotStarted,
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
            State::Running
        }
        Some(Status::EXITED | Status::DEAD) => State::Ended(Ended {
            code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
            error: state.error.unwrap_or_default(),
        }),
        Some(Status::REMOVING | Status::EMPTY) | None => State::Leaving,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_podman_are_understood() {
        let ended = State::Ended(Ended { code: 3, out_of_memory: false, error: String::new() });
        for (status, wanted) in [
            ("stopped", &ended),
            ("exited", &ended),
            ("initialized", &State::NotStarted),
            ("created", &State::NotStarted),
            ("paused", &State::Running),
        ] {
            let text =
                format!(r#"{{"Id": "a", "State": {{"Status": "{status}", "ExitCode": 3}}}}"#);
            assert_eq!(Found::parse(text.as_bytes()).unwrap().state, *wanted, "{status}");
        }
    }
}
