//! The arguments of a sandbox-server in a container.

use super::{DATA_NAME, DIR, PORT};
use crate::settings::DockerSettings;
use slotmux_backend::LaunchSpec;
use slotmux_protocol::Network;
use std::time::Duration;

pub(super) fn arguments(settings: &DockerSettings, spec: &LaunchSpec) -> Vec<String> {
    let before = settings.args_before.iter().map(|it| it.to_string_lossy().into_owned());
    let mut arguments: Vec<String> = before.collect();
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    // Its network is its own; the token keeps the neighbours out.
    option("--host", "0.0.0.0".to_owned());
    option("--port", PORT.to_string());
    option("--slots", spec.slots.to_string());
    option("--data-dir", format!("{DIR}/{DATA_NAME}"));
    option("--isolation-min", spec.isolation_min.as_str().to_owned());
    option("--root", spec.root.as_str().to_owned());
    option("--network", network(spec.network).to_owned());
    option("--lifetime-s", seconds(spec.lifetime));
    option("--orphaned-after-s", seconds(spec.orphaned_after));
    let limits = spec.slot_limits;
    option("--memory-bytes-max", limits.memory_bytes_max.to_string());
    option("--cpu-millis-max", limits.cpu_millis_max.to_string());
    option("--disk-bytes-max", limits.disk_bytes_max.to_string());
    option("--processes-max", limits.processes_max.to_string());
    option("--open-files-max", limits.open_files_max.to_string());
    option("--file-bytes-max", limits.file_bytes_max.to_string());
    option("--tmp-bytes-max", limits.tmp_bytes_max.to_string());
    // One argument, so that a name with a leading dash is no option.
    arguments.push(format!("--container={}", spec.container));
    arguments
}

fn network(network: Network) -> &'static str {
    match network {
        Network::On => "on",
        Network::Off => "off",
        Network::AllowList => "allow",
    }
}

/// Whole seconds, up: a short time never becomes none.
fn seconds(duration: Duration) -> String {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).to_string()
}
