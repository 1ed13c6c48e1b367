//! What people write on the command line, and the settings that come of it.

mod apart;
mod network;

use crate::egress::AllowList;
use crate::user::User;
use slotmux_protocol::{ContainerId, Isolation, Limits, Network, Root, SlotLimits};
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

/// The variable that the container's token comes in. Taken out of the environment at once.
pub const TOKEN_VARIABLE: &str = "SLOTMUX_CONTAINER_TOKEN";

/// Serve slots: isolated workspaces in which bash and file tools run.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  sandbox-server --port 8080 --slots 10 --data-dir /data
  curl -s localhost:8080/execute -d '{\"slot_id\":\"slot_0\",\"tool\":\"bash\",\"args\":{\"command\":\"id\"}}'

Exit codes: 0 stopped when asked to, 1 could not start, 2 bad arguments, 3 no rung that is allowed
can be had.")]
pub struct Options {
    /// Address to listen on. Anything but loopback needs `SLOTMUX_CONTAINER_TOKEN`, or --no-auth.
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,

    /// Number of slots.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub slots: u16,

    /// Where slots keep their files [default: `$NOMAD_ALLOC_DIR/data` under Nomad, else /data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Give up root for this user, which then owns the data directory.
    #[arg(long, value_name = "UID[:GID]")]
    pub r#become: Option<User>,

    /// Name of this container, told to pools and used for cgroups.
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,

    /// Refuse to run below this: namespaces, uid, landlock or none.
    #[arg(long, default_value = "landlock", value_name = "RUNG")]
    pub isolation_min: Isolation,

    /// Take this rung and no better one [default: the best that works].
    #[arg(long, value_name = "RUNG")]
    pub isolation: Option<Isolation>,

    /// Whether slots reach the network: on, off, or allow, which is what --allow says and no more.
    #[arg(long, default_value = "on", value_parser = parse_network, value_name = "on|off|allow")]
    pub network: Network,

    /// With --network allow: a host name, `*.` and a name for all below it, an address, or a
    /// network in CIDR form; on ports 443 and 80 if none is said. Repeatable.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,

    /// Show one more directory of this container to the slots, read-only. Repeatable.
    #[arg(long, value_name = "DIR")]
    pub expose: Vec<PathBuf>,

    /// The slots' root: `minimal` shows the system directories, read-only; `image` is the whole
    /// image of this container, copied on write, in which the slot is root. Needs namespaces.
    #[arg(long, default_value = "minimal", value_name = "minimal|image")]
    pub root: Root,

    /// What all snapshots take on the disk, in bytes; 0: no limit.
    #[arg(long, default_value_t = 8 << 30, value_name = "BYTES")]
    pub snapshot_bytes_max: u64,

    /// Memory of a slot, in bytes; 0: no limit.
    #[arg(long, default_value_t = SlotLimits::default().memory_bytes_max, value_name = "BYTES")]
    pub memory_bytes_max: u64,

    /// Processor time of a slot, in thousandths of a second for each second; 0: no limit.
    #[arg(long, default_value_t = SlotLimits::default().cpu_millis_max, value_name = "MILLIS")]
    pub cpu_millis_max: u32,

    /// What the files of a slot take on the disk, in bytes; 0: no limit.
    #[arg(long, default_value_t = SlotLimits::default().disk_bytes_max, value_name = "BYTES")]
    pub disk_bytes_max: u64,

    /// Processes of a slot; 0: no limit.
    #[arg(long, default_value_t = SlotLimits::default().processes_max, value_name = "N")]
    pub processes_max: u32,

    /// Open files of each process; 0: no limit.
    #[arg(long, default_value_t = SlotLimits::default().open_files_max, value_name = "N")]
    pub open_files_max: u32,

    /// Size of one file, in bytes; 0: no limit.
    #[arg(long, default_value_t = SlotLimits::default().file_bytes_max, value_name = "BYTES")]
    pub file_bytes_max: u64,

    /// Size of a slot's /tmp and of its /dev/shm, in bytes; 0: no limit. Elsewhere than on
    /// `namespaces` they are directories, and count as disk.
    #[arg(long, default_value_t = SlotLimits::default().tmp_bytes_max, value_name = "BYTES")]
    pub tmp_bytes_max: u64,

    /// Processor time of a call that does not ask for its own, in thousandths of a second; 0: no
    /// limit.
    #[arg(long, default_value_t = Limits::default().cpu_ms_max, value_name = "MS")]
    pub cpu_ms_max: u64,

    /// Limit slots without cgroups, also where they could be had.
    #[arg(long)]
    pub no_cgroup: bool,

    /// When asked to stop, let running calls go on for this long.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub grace_s: f64,

    /// End after this long, whatever happens; 0: never.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub lifetime_s: f64,

    /// End when no pool has been linked for this long; 0: never.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub orphaned_after_s: f64,

    /// Write {"authority":"HOST:PORT"} there when the slots answer.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// Serve a public address although no token is set.
    #[arg(long)]
    pub no_auth: bool,

    /// Remove what a killed server of this --data-dir and --container has left, and exit.
    #[arg(long)]
    pub cleanup: bool,
}

fn parse_network(text: &str) -> Result<Network, String> {
    match text {
        "on" => Ok(Network::On),
        "off" => Ok(Network::Off),
        "allow" => Ok(Network::AllowList),
        other => Err(format!("the network is on, off or allow, not `{other}`")),
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) slots: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) container: ContainerId,
    pub(crate) isolation_min: Isolation,
    pub(crate) isolation_max: Isolation,
    pub(crate) network: Network,
    /// For [`Network::AllowList`].
    pub(crate) allowed: Option<Arc<AllowList>>,
    pub(crate) exposed: Vec<PathBuf>,
    pub(crate) root: Root,
    pub(crate) snapshot_bytes_max: u64,
    pub(crate) slot_limits: SlotLimits,
    pub(crate) limits: Limits,
    pub(crate) cgroups: bool,
    pub(crate) grace: Duration,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) orphaned_after: Option<Duration>,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("--isolation {rung} is below --isolation-min {minimum}")]
    BelowMinimum { rung: Isolation, minimum: Isolation },
    #[error("--slots is between 1 and {max}, not {slots}", max = crate::uids::SLOTS_MAX - 1)]
    Slots { slots: u16 },
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    #[error("--container: {0}")]
    Container(slotmux_protocol::IdError),
    #[error("{flag} takes seconds between 0 and 315360000, not {value}")]
    Seconds { flag: &'static str, value: f64 },
    #[error("--expose takes an absolute path of a directory that exists, not `{}`", .0.display())]
    Expose(PathBuf),
    #[error(
        "--data-dir `{}` and `{}`, which is shown to every slot, lie in one another: slots would \
         read each other's files\nhint: take a directory beside it, such as /data or \
         /var/lib/slotmux", .dir.display(), .shown.display()
    )]
    Shown { dir: PathBuf, shown: PathBuf },
    #[error("{flag} is 0, for no limit, or at least {min}, not {value}: nothing would run")]
    TooLow { flag: &'static str, min: u64, value: u64 },
    #[error(
        "{host} can be reached from other machines: set {TOKEN_VARIABLE}, or say --no-auth if \
         everybody who reaches it may run commands"
    )]
    Open { host: IpAddr },
}

impl Settings {
    pub(crate) fn new(options: Options, token: Option<String>) -> Result<Self, SettingsError> {
        let max = crate::uids::SLOTS_MAX - 1;
        if !(1..=max).contains(&options.slots) {
            return Err(SettingsError::Slots { slots: options.slots });
        }
        if let Some(rung) = options.isolation.filter(|rung| *rung < options.isolation_min) {
            return Err(SettingsError::BelowMinimum { rung, minimum: options.isolation_min });
        }
        let allowed = network::allowed(options.network, &options.allow, options.isolation)?;
        let minimum = network::minimum(options.network, options.isolation_min);
        let token = token.filter(|it| !it.is_empty());
        if !options.host.is_loopback() && token.is_none() && !options.no_auth {
            return Err(SettingsError::Open { host: options.host });
        }
        for path in &options.expose {
            if !path.is_absolute() || !path.is_dir() {
                return Err(SettingsError::Expose(path.clone()));
            }
        }
        let data_dir = options.data_dir.unwrap_or_else(default_data_dir);
        if let Some(shown) = apart::shown_with(&data_dir, &options.expose) {
            return Err(SettingsError::Shown { dir: data_dir, shown });
        }
        let slot_limits = SlotLimits {
            memory_bytes_max: options.memory_bytes_max,
            cpu_millis_max: options.cpu_millis_max,
            disk_bytes_max: options.disk_bytes_max,
            processes_max: options.processes_max,
            open_files_max: options.open_files_max,
            file_bytes_max: options.file_bytes_max,
            tmp_bytes_max: options.tmp_bytes_max,
        };
        suffice(&slot_limits)?;
        let container = match options.container {
            Some(name) => ContainerId::new(name),
            None => ContainerId::new(format!("container-{}", std::process::id())),
        };
        Ok(Self {
            host: options.host,
            port: options.port,
            slots: options.slots,
            data_dir,
            container: container.map_err(SettingsError::Container)?,
            isolation_min: options.isolation.unwrap_or(minimum),
            isolation_max: options.isolation.unwrap_or(Isolation::Namespaces),
            network: options.network,
            allowed,
            exposed: options.expose,
            root: options.root,
            snapshot_bytes_max: options.snapshot_bytes_max,
            slot_limits,
            limits: Limits { cpu_ms_max: options.cpu_ms_max, ..Limits::default() },
            cgroups: !options.no_cgroup,
            grace: seconds("--grace-s", options.grace_s)?,
            lifetime: or_never("--lifetime-s", options.lifetime_s)?,
            orphaned_after: or_never("--orphaned-after-s", options.orphaned_after_s)?,
            ready_file: options.ready_file,
            token,
        })
    }
}

/// Below these not even `bash` comes to run a command, and the slot would seem broken.
fn suffice(limits: &SlotLimits) -> Result<(), SettingsError> {
    for (flag, value, min) in [
        ("--memory-bytes-max", limits.memory_bytes_max, 16 << 20),
        ("--processes-max", limits.processes_max.into(), 4),
        ("--open-files-max", limits.open_files_max.into(), 16),
        ("--cpu-millis-max", limits.cpu_millis_max.into(), 10),
        ("--disk-bytes-max", limits.disk_bytes_max, 1 << 20),
    ] {
        if value != 0 && value < min {
            return Err(SettingsError::TooLow { flag, min, value });
        }
    }
    Ok(())
}

fn seconds(flag: &'static str, value: f64) -> Result<Duration, SettingsError> {
    if (0.0..=315_360_000.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(SettingsError::Seconds { flag, value })
    }
}

fn or_never(flag: &'static str, value: f64) -> Result<Option<Duration>, SettingsError> {
    seconds(flag, value).map(|it| (!it.is_zero()).then_some(it))
}

fn default_data_dir() -> PathBuf {
    match std::env::var_os("NOMAD_ALLOC_DIR") {
        Some(dir) => PathBuf::from(dir).join("data"),
        None => PathBuf::from("/data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn settings(args: &[&str]) -> Result<Settings, SettingsError> {
        let line = ["server"].iter().chain(args);
        Settings::new(Line::try_parse_from(line).unwrap().options, None)
    }

    #[test]
    fn limits_are_none_or_suffice_for_a_command() {
        for (flag, min) in [
            ("--memory-bytes-max", 16_u64 << 20),
            ("--processes-max", 4),
            ("--open-files-max", 16),
            ("--cpu-millis-max", 10),
            ("--disk-bytes-max", 1 << 20),
        ] {
            for value in [0, min, min + 1] {
                let taken = settings(&[flag, &value.to_string()]);
                assert!(taken.is_ok(), "{flag} {value}: {taken:?}");
            }
            for value in [1, min - 1] {
                let error = settings(&[flag, &value.to_string()]).unwrap_err().to_string();
                assert!(error.contains(flag) && error.contains(&min.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn a_data_directory_that_slots_are_shown_is_refused_with_a_hint() {
        let error = settings(&["--data-dir", "/usr/local/none-such"]);
        assert!(matches!(error, Err(SettingsError::Shown { .. })), "{error:?}");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`/usr/local/none-such` and `/usr`"), "{error}");
        assert!(error.contains("\nhint: "), "{error}");
        let error = settings(&["--data-dir", "/tmp/none-such", "--expose", "/tmp"]);
        assert!(matches!(error, Err(SettingsError::Shown { .. })), "{error:?}");
    }
}
