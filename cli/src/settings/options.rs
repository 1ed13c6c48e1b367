//! Everything that can be set, once: as a flag, in the environment, and in the file.

use super::{
    file::Table,
    value::{Journal, Listen, parse_network},
};
use crate::span::Seconds;
use clap::Args;
use slotmux_protocol::{Isolation, Network, Root};
use std::path::PathBuf;

/// A struct of options, its keys in the file, and how layers of it are put together.
macro_rules! options {
    (
        $(#[$outer:meta])*
        $name:ident { $( $(#[$meta:meta])* $field:ident: $type:ty, )* }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, PartialEq, Args)]
        pub(crate) struct $name { $( $(#[$meta])* pub(crate) $field: Option<$type>, )* }

        impl $name {
            pub(in crate::settings) const KEYS: &[&str] = &[$(stringify!($field),)*];

            /// `self` wins.
            #[must_use]
            pub(crate) fn or(self, weaker: Self) -> Self {
                Self { $($field: self.$field.or(weaker.$field),)* }
            }

            pub(in crate::settings) fn take(table: &mut Table<'_, '_, '_>) -> Self {
                Self { $($field: table.take(stringify!($field)),)* }
            }
        }

        impl Keys for $name {
            fn set(&self) -> Vec<&'static str> {
                [$(self.$field.is_some().then_some(stringify!($field)),)*]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        }
    };
}

mod containers;

pub(crate) use containers::{BackendOptions, ContainerOptions};

/// Those of a struct that somebody has set.
pub(in crate::settings) trait Keys {
    fn set(&self) -> Vec<&'static str>;
}

options! {
    PoolOptions {
        /// Stable name of the pool: it finds its containers again by it [default: default]
        #[arg(long, env = "SLOTMUX_POOL", value_name = "NAME")]
        pool: String,

        /// Where to listen [default: 127.0.0.1:8080]
        #[arg(long, env = "SLOTMUX_LISTEN", value_name = "HOST:PORT")]
        listen: Listen,

        /// Ask this of every client, as a bearer token. The variable is safer than the flag
        #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
        token: String,

        /// For the journal and the containers' files [default: /var/lib/slotmux, or
        /// ~/.local/state/slotmux]
        #[arg(long, env = "SLOTMUX_STATE_DIR", value_name = "DIR")]
        state_dir: PathBuf,

        /// Where leases are written, or `off` [default: in the state directory]
        #[arg(long, env = "SLOTMUX_JOURNAL", value_name = "FILE|off")]
        journal: Journal,

        /// When told to stop, let containers and leases live for the next start
        #[arg(
            long, env = "SLOTMUX_KEEP_CONTAINERS", value_name = "BOOL",
            num_args = 0..=1, require_equals = true, default_missing_value = "true"
        )]
        keep_containers: bool,

        /// Acquire requests that may wait at the same time
        #[arg(long, env = "SLOTMUX_WAITING_MAX", value_name = "N", help_heading = FINE)]
        waiting_max: usize,

        /// How long an acquire waits that does not say so
        #[arg(
            long, env = "SLOTMUX_WAIT_DEFAULT_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = FINE
        )]
        wait_default_s: Seconds,

        /// How often a container is asked whether it lives
        #[arg(
            long, env = "SLOTMUX_HEARTBEAT_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = FINE
        )]
        heartbeat_s: Seconds,

        /// A container that is out of reach for longer is lost
        #[arg(
            long, env = "SLOTMUX_DEAD_AFTER_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = FINE
        )]
        dead_after_s: Seconds,

        /// A slot whose reset takes longer is quarantined
        #[arg(
            long, env = "SLOTMUX_RESET_TIMEOUT_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = FINE
        )]
        reset_timeout_s: Seconds,

        /// What a container gets to end by itself
        #[arg(
            long, env = "SLOTMUX_STOP_GRACE_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = FINE
        )]
        stop_grace_s: Seconds,
    }
}

const FINE: &str = "Fine points";
const PROFILE: &str = "Slots (of every profile)";

options! {
    ProfileOptions {
        #[arg(skip)]
        name: String,

        /// Slots of a container [default: 8]
        #[arg(long, env = "SLOTMUX_SLOTS", value_name = "N", help_heading = PROFILE)]
        slots: u16,

        /// Containers to have at least [default: 0]
        #[arg(long, env = "SLOTMUX_CONTAINERS_MIN", value_name = "N", help_heading = PROFILE)]
        containers_min: u32,

        /// Containers to have at most [default: 2]
        #[arg(long, env = "SLOTMUX_CONTAINERS_MAX", value_name = "N", help_heading = PROFILE)]
        containers_max: u32,

        /// Free slots to have ready beyond the demand [default: 0]
        #[arg(long, env = "SLOTMUX_HEADROOM_SLOTS", value_name = "N", help_heading = PROFILE)]
        headroom_slots: u32,

        /// Refuse to run below this: namespaces, uid, landlock or none [default: landlock]
        #[arg(long, env = "SLOTMUX_ISOLATION_MIN", value_name = "RUNG", help_heading = PROFILE)]
        isolation_min: Isolation,

        /// What slots see as /: minimal, or image, a copy-on-write view of the container's whole
        /// file system, which takes real root [default: minimal]
        #[arg(long, env = "SLOTMUX_ROOT", value_name = "ROOT", help_heading = PROFILE)]
        root: Root,

        /// Whether slots reach the network: on or off [default: off]
        #[arg(
            long, env = "SLOTMUX_NETWORK", value_name = "on|off",
            value_parser = parse_network, help_heading = PROFILE
        )]
        network: Network,

        /// A lease ends after this long without a call or a renewal [default: 300]
        #[arg(
            long, env = "SLOTMUX_LEASE_TTL_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = PROFILE
        )]
        lease_ttl_s: Seconds,

        /// Containers that nobody needs are kept for this long [default: 60]
        #[arg(
            long, env = "SLOTMUX_COOLDOWN_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = PROFILE
        )]
        cooldown_s: Seconds,

        /// A container is replaced before it is this old, and ends by itself then
        #[arg(
            long, env = "SLOTMUX_CONTAINER_LIFETIME_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = PROFILE
        )]
        container_lifetime_s: Seconds,

        /// A container ends by itself when no pool talked to it for this long
        #[arg(
            long, env = "SLOTMUX_ORPHANED_AFTER_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = PROFILE
        )]
        orphaned_after_s: Seconds,

        /// A container that takes longer to start is given up
        #[arg(
            long, env = "SLOTMUX_START_TIMEOUT_S", value_name = "SECONDS",
            value_parser = crate::span::parse, help_heading = PROFILE
        )]
        start_timeout_s: Seconds,

        /// Memory of a slot, in bytes; 0: no limit
        #[arg(long, env = "SLOTMUX_MEMORY_BYTES_MAX", value_name = "BYTES", help_heading = PROFILE)]
        memory_bytes_max: u64,

        /// Processor time of a slot, in thousandths of a second for each second; 0: no limit
        #[arg(long, env = "SLOTMUX_CPU_MILLIS_MAX", value_name = "MILLIS", help_heading = PROFILE)]
        cpu_millis_max: u32,

        /// What the files of a slot take on the disk, in bytes; 0: no limit
        #[arg(long, env = "SLOTMUX_DISK_BYTES_MAX", value_name = "BYTES", help_heading = PROFILE)]
        disk_bytes_max: u64,

        /// Processes of a slot; 0: no limit
        #[arg(long, env = "SLOTMUX_PROCESSES_MAX", value_name = "N", help_heading = PROFILE)]
        processes_max: u32,

        /// Open files of each process; 0: no limit
        #[arg(long, env = "SLOTMUX_OPEN_FILES_MAX", value_name = "N", help_heading = PROFILE)]
        open_files_max: u32,

        /// Size of one file, in bytes; 0: no limit
        #[arg(long, env = "SLOTMUX_FILE_BYTES_MAX", value_name = "BYTES", help_heading = PROFILE)]
        file_bytes_max: u64,

        /// Size of a slot's /tmp and of its /dev/shm, in bytes; 0: no limit
        #[arg(long, env = "SLOTMUX_TMP_BYTES_MAX", value_name = "BYTES", help_heading = PROFILE)]
        tmp_bytes_max: u64,
    }
}

/// Whether the last part of `key` can be set.
pub(super) fn is_known(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    [PoolOptions::KEYS, BackendOptions::KEYS, ProfileOptions::KEYS, ContainerOptions::KEYS]
        .iter()
        .any(|keys| keys.contains(&last))
}
