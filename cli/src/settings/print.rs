//! `--print-settings`: what would run, as a file that means the same.

mod docker;

use super::{AtStop, BackendSettings, Settings};
use slotmux_pool::{ProfileConfig, journal::JournalMode};
use slotmux_protocol::Network;
use std::{
    fmt::{self, Write as _},
    time::Duration,
};

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = &self.pool;
        let keep = self.at_stop == AtStop::KeepContainers;
        let journal = match &pool.journal {
            JournalMode::Off => "off".to_owned(),
            JournalMode::File(path) => path.display().to_string(),
        };
        writeln!(f, "pool = {}", quoted(&pool.name))?;
        writeln!(f, "listen = \"{}\"", self.listen)?;
        match self.token {
            Some(_) => writeln!(f, "# token: set, not shown")?,
            None => writeln!(f, "# token: none")?,
        }
        writeln!(f, "state_dir = {}", quoted(&self.state_dir.display().to_string()))?;
        writeln!(f, "journal = {}", quoted(&journal))?;
        writeln!(f, "keep_containers = {keep}")?;
        writeln!(f, "waiting_max = {}", pool.waiting_max)?;
        writeln!(f, "wait_default_s = {}", seconds(pool.wait_default))?;
        writeln!(f, "heartbeat_s = {}", seconds(pool.heartbeat))?;
        writeln!(f, "dead_after_s = {}", seconds(pool.dead_after))?;
        writeln!(f, "reset_timeout_s = {}", seconds(pool.reset_timeout))?;
        writeln!(f, "stop_grace_s = {}", seconds(pool.stop_grace))?;
        match &self.backend {
            BackendSettings::Local => writeln!(f, "backend = \"local\"")?,
            BackendSettings::Docker(choice) => {
                writeln!(f, "backend = \"docker\"")?;
                docker::print_engine(f, choice)?;
            }
        }
        for profile in &pool.profiles {
            print_profile(f, profile)?;
            if let BackendSettings::Docker(choice) = &self.backend
                && let Some(container) = choice.settings.profiles.get(&profile.name)
            {
                docker::print_container(f, container)?;
            }
        }
        Ok(())
    }
}

fn print_profile(f: &mut fmt::Formatter<'_>, profile: &ProfileConfig) -> fmt::Result {
    let network = match profile.network {
        Network::On => "on",
        Network::Off => "off",
        Network::AllowList => "allow",
    };
    let limits = profile.slot_limits;
    writeln!(f, "\n[[profile]]")?;
    writeln!(f, "name = {}", quoted(profile.name.as_str()))?;
    writeln!(f, "slots = {}", profile.slots_per_container)?;
    writeln!(f, "containers_min = {}", profile.containers_min)?;
    writeln!(f, "containers_max = {}", profile.containers_max)?;
    writeln!(f, "headroom_slots = {}", profile.headroom_slots)?;
    writeln!(f, "isolation_min = \"{}\"", profile.isolation_min)?;
    writeln!(f, "root = \"{}\"", profile.root)?;
    writeln!(f, "network = \"{network}\"")?;
    writeln!(f, "lease_ttl_s = {}", seconds(profile.lease_ttl))?;
    writeln!(f, "cooldown_s = {}", seconds(profile.cooldown))?;
    writeln!(f, "container_lifetime_s = {}", seconds(profile.container_lifetime))?;
    writeln!(f, "orphaned_after_s = {}", seconds(profile.orphaned_after))?;
    writeln!(f, "start_timeout_s = {}", seconds(profile.start_timeout))?;
    writeln!(f, "memory_bytes_max = {}", limits.memory_bytes_max)?;
    writeln!(f, "cpu_millis_max = {}", limits.cpu_millis_max)?;
    writeln!(f, "disk_bytes_max = {}", limits.disk_bytes_max)?;
    writeln!(f, "processes_max = {}", limits.processes_max)?;
    writeln!(f, "open_files_max = {}", limits.open_files_max)?;
    writeln!(f, "file_bytes_max = {}", limits.file_bytes_max)?;
    writeln!(f, "tmp_bytes_max = {}", limits.tmp_bytes_max)
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Writing to a string never fails.
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}
