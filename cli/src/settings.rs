//! Options are what people wrote, in flags, the environment and a file; settings are what runs.
//!
//! Invariant: every fault is listed, each with its place, before anything starts.

mod backend;
mod file;
mod options;
mod print;
mod value;

pub(crate) use backend::{BackendSettings, DockerChoice};
pub(crate) use file::{FileFault, Place};
pub(crate) use options::{BackendOptions, ContainerOptions, PoolOptions, ProfileOptions};
pub(crate) use value::{Journal, Listen, parse_network};

use crate::fault::Fault;
use backend::Written;
use clap::Args;
use file::FileOptions;
use slotmux_pool::{PoolConfig, ProfileConfig, config::ConfigFaults, journal::JournalMode};
use slotmux_protocol::ProfileName;
use std::{
    collections::HashSet,
    env, fmt,
    path::{Path, PathBuf},
    time::Duration,
};

const DEFAULT_NAME: &str = "default";
const DEFAULT_SLOTS: u16 = 8;
const DEFAULT_CONTAINERS_MAX: u32 = 2;
const DEFAULT_LISTEN: Listen = Listen::loopback(8080);

/// What can be said on the command line and in the environment.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) pool: PoolOptions,

    #[command(flatten)]
    pub(crate) backend: BackendOptions,

    #[command(flatten)]
    pub(crate) profile: ProfileOptions,

    #[command(flatten)]
    pub(crate) container: ContainerOptions,
}

/// What `serve` runs with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) pool: PoolConfig,
    pub(crate) backend: BackendSettings,
    pub(crate) listen: Listen,
    pub(crate) token: Option<String>,
    pub(crate) state_dir: PathBuf,
    /// Whether containers outlive the pool process when it is told to stop.
    pub(crate) at_stop: AtStop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtStop {
    StopContainers,
    KeepContainers,
}

/// What is wrong, and where it was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SettingsFaults {
    file: Option<PathBuf>,
    faults: Vec<FileFault>,
}

impl Settings {
    /// Flags and environment win over the file, the file over defaults.
    pub(crate) fn new(file: Option<&Path>, flags: Flags) -> Result<Self, Fault> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                Fault::because(format!("read `{}`", path.display()), &error)
                    .exit(crate::fault::USAGE)
            })?,
            None => String::new(),
        };
        Self::merge(&text, flags)
            .map_err(|faults| SettingsFaults { file: file.map(Path::to_owned), faults }.into())
    }

    /// Without a file, and with a profile of each name that differ in nothing else.
    pub(crate) fn alike(
        flags: Flags,
        names: impl IntoIterator<Item = ProfileName>,
    ) -> Result<Self, Fault> {
        let profiles = names.into_iter().map(|name| {
            let name = Some(name.to_string());
            (ProfileOptions { name, ..ProfileOptions::default() }, ContainerOptions::default())
        });
        Self::build((FileOptions::of(profiles.collect()), Vec::new()), flags)
            .map_err(|faults| SettingsFaults { file: None, faults }.into())
    }

    fn merge(text: &str, flags: Flags) -> Result<Self, Vec<FileFault>> {
        Self::build(FileOptions::read(text), flags)
    }

    fn build(
        (mut file, mut faults): (FileOptions, Vec<FileFault>),
        flags: Flags,
    ) -> Result<Self, Vec<FileFault>> {
        let broken: HashSet<Place> = faults.iter().map(|fault| fault.place).collect();
        let options = flags.pool.or(std::mem::take(&mut file.pool));
        let backend = flags.backend.or(std::mem::take(&mut file.backend));
        let state_dir = options.state_dir.clone().unwrap_or_else(default_state_dir);
        let (profiles, containers) =
            merge_profiles(&mut file, &flags.profile, &flags.container, &mut faults);
        let mut news = Vec::new();
        let backend = BackendSettings::new(&backend, &containers, &file, &mut news);
        let pool = options.config(profiles, &state_dir);
        if let Err(wrong) = pool.check() {
            news.extend(from_pool(wrong, &file));
        }
        // A key that could not be read has a default that nobody wrote.
        faults.extend(news.into_iter().filter(|fault| !broken.contains(&fault.place)));
        let listen = options.listen.unwrap_or(DEFAULT_LISTEN);
        let token = options.token.filter(|token| !token.is_empty());
        if token.is_none() && !listen.is_loopback() {
            let what = format!(
                "`listen`: {listen} can be reached from elsewhere, and there is no token; set \
                 SLOTMUX_TOKEN, or listen on 127.0.0.1"
            );
            faults.push(FileFault { place: file.place("listen"), what });
        }
        let at_stop = match options.keep_containers {
            Some(true) => AtStop::KeepContainers,
            Some(false) | None => AtStop::StopContainers,
        };
        if faults.is_empty() {
            Ok(Self { pool, backend, listen, token, state_dir, at_stop })
        } else {
            faults.sort_by_key(|fault| fault.place);
            Err(faults)
        }
    }
}

/// Each profile for the pool, and what its containers are.
fn merge_profiles(
    file: &mut FileOptions,
    flags: &ProfileOptions,
    container_flags: &ContainerOptions,
    faults: &mut Vec<FileFault>,
) -> (Vec<ProfileConfig>, Vec<Written>) {
    let mut written = std::mem::take(&mut file.profiles);
    if written.is_empty() {
        written.push(Default::default());
    }
    let (mut profiles, mut containers) = (Vec::new(), Vec::new());
    for (at, (profile, container)) in written.into_iter().enumerate() {
        let name = profile.name.clone();
        let name = ProfileName::new(name.as_deref().unwrap_or(DEFAULT_NAME));
        let name = name.or_else(|error| {
            faults.push(FileFault {
                place: file.place(&format!("profile[{at}].name")),
                what: format!("`name`: {error}"),
            });
            // The rest of the profile is read all the same.
            ProfileName::new(format!("profile-{at}"))
        });
        if let Ok(name) = name {
            let options = container_flags.clone().or(container);
            containers.push(Written { name: name.clone(), at, options });
            profiles.push(flags.clone().or(profile).config(name));
        }
    }
    (profiles, containers)
}

impl PoolOptions {
    fn config(&self, profiles: Vec<ProfileConfig>, state_dir: &Path) -> PoolConfig {
        let mut config = PoolConfig::new(self.pool.as_deref().unwrap_or(DEFAULT_NAME), profiles);
        config.journal = match &self.journal {
            Some(Journal::Off) => JournalMode::Off,
            Some(Journal::File(path)) => JournalMode::File(path.clone()),
            None => JournalMode::File(state_dir.join(format!("{}.journal", config.name))),
        };
        set(&mut config.waiting_max, self.waiting_max);
        set_span(&mut config.wait_default, self.wait_default_s);
        set_span(&mut config.heartbeat, self.heartbeat_s);
        set_span(&mut config.dead_after, self.dead_after_s);
        set_span(&mut config.reset_timeout, self.reset_timeout_s);
        set_span(&mut config.stop_grace, self.stop_grace_s);
        config
    }
}

impl ProfileOptions {
    pub(crate) fn config(&self, name: ProfileName) -> ProfileConfig {
        let slots = self.slots.unwrap_or(DEFAULT_SLOTS);
        let containers_max = self.containers_max.unwrap_or(DEFAULT_CONTAINERS_MAX);
        let mut config = ProfileConfig::new(name, slots, containers_max);
        set(&mut config.containers_min, self.containers_min);
        set(&mut config.headroom_slots, self.headroom_slots);
        set(&mut config.isolation_min, self.isolation_min);
        set(&mut config.root, self.root);
        set(&mut config.network, self.network);
        set_span(&mut config.lease_ttl, self.lease_ttl_s);
        set_span(&mut config.container_lifetime, self.container_lifetime_s);
        set_span(&mut config.orphaned_after, self.orphaned_after_s);
        set_span(&mut config.cooldown, self.cooldown_s);
        set_span(&mut config.start_timeout, self.start_timeout_s);
        set(&mut config.slot_limits.memory_bytes_max, self.memory_bytes_max);
        set(&mut config.slot_limits.cpu_millis_max, self.cpu_millis_max);
        set(&mut config.slot_limits.disk_bytes_max, self.disk_bytes_max);
        set(&mut config.slot_limits.processes_max, self.processes_max);
        set(&mut config.slot_limits.open_files_max, self.open_files_max);
        set(&mut config.slot_limits.file_bytes_max, self.file_bytes_max);
        set(&mut config.slot_limits.tmp_bytes_max, self.tmp_bytes_max);
        config
    }
}

fn set<T>(field: &mut T, option: Option<T>) {
    if let Some(value) = option {
        *field = value;
    }
}

fn set_span(field: &mut Duration, option: Option<crate::span::Seconds>) {
    set(field, option.map(|it| Duration::from_millis(it.as_millis())));
}

/// The pool's own faults, at the places where people wrote what is wrong.
fn from_pool(ConfigFaults(faults): ConfigFaults, file: &FileOptions) -> Vec<FileFault> {
    faults
        .into_iter()
        .map(|fault| {
            let key = fault.field.replace("profiles[", "profile[");
            let key = key.replace("slots_per_container", "slots");
            let key = if key == "name" { "pool".to_owned() } else { key };
            let in_seconds = format!("{key}_s");
            let key = if options::is_known(&in_seconds) { in_seconds } else { key };
            let last = key.rsplit('.').next().unwrap_or(&key);
            FileFault { what: format!("`{last}` {}", fault.message), place: file.place(&key) }
        })
        .collect()
}

/// Where a pool keeps its journal and its containers' files, unless it is told where.
pub(crate) fn default_state_dir() -> PathBuf {
    let home = |name: &str| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/slotmux");
    }
    home("XDG_STATE_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(env::temp_dir)
        .join("slotmux")
}

impl From<SettingsFaults> for Fault {
    fn from(faults: SettingsFaults) -> Self {
        Self::usage(faults.to_string())
    }
}

impl fmt::Display for SettingsFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [_] => write!(f, "the settings have a fault")?,
            faults => write!(f, "the settings have {} faults", faults.len())?,
        }
        for fault in &self.faults {
            match (&self.file, fault.place) {
                (Some(file), Place::Line(line)) => {
                    write!(f, "\n  {}:{line}: {}", file.display(), fault.what)?;
                }
                _ => write!(f, "\n  {}", fault.what)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
