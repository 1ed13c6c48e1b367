//! What runs containers, and what they are made of.

use super::{Keys, Table};
use crate::settings::value::{
    BackendKind, Injection, List, PortRange, PullWhen, Reached, UserIds, WallsOf,
};
use clap::Args;
use std::{net::IpAddr, path::PathBuf};

const CONTAINERS: &str = "Containers of a Docker engine";
const IMAGES: &str = "Containers of a Docker engine (of every profile)";

options! {
    BackendOptions {
        /// What runs containers: local, child processes of this machine, or docker
        /// [default: local]
        #[arg(long, env = "SLOTMUX_BACKEND", value_name = "BACKEND")]
        backend: BackendKind,

        /// The static sandbox-server that is put into images [default: the one beside this
        /// program, or this program if it is static]
        #[arg(long, env = "SLOTMUX_SANDBOX_SERVER", value_name = "FILE", help_heading = CONTAINERS)]
        sandbox_server: PathBuf,

        /// The engine: `unix://PATH` or `tcp://HOST:PORT` [default: `DOCKER_HOST`, else the usual
        /// socket]
        #[arg(long, env = "SLOTMUX_DOCKER_HOST", value_name = "URL", help_heading = CONTAINERS)]
        docker_host: String,

        /// A directory with ca.pem, cert.pem and key.pem, by which tcp:// is TLS [default: as
        /// `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say]
        #[arg(long, env = "SLOTMUX_DOCKER_CERTIFICATES", value_name = "DIR", help_heading = CONTAINERS)]
        docker_certificates: PathBuf,

        /// Where the credentials for registries are, in a config.json [default: `DOCKER_CONFIG`, else
        /// ~/.docker]
        #[arg(long, env = "SLOTMUX_DOCKER_CONFIG_DIR", value_name = "DIR", help_heading = CONTAINERS)]
        docker_config_dir: PathBuf,

        /// Whose the containers are: a pool sees, adopts and stops those of its owner only
        /// [default: one that is drawn and kept in the state directory]
        #[arg(long, env = "SLOTMUX_DOCKER_OWNER", value_name = "NAME", help_heading = CONTAINERS)]
        docker_owner: String,

        /// How the server gets into a container: copy; bind, a mount, where the engine has the same
        /// file at the same path; or best, which looks whether it has [default: best]
        #[arg(long, env = "SLOTMUX_DOCKER_INJECT", value_name = "HOW", help_heading = CONTAINERS)]
        docker_inject: Injection,

        /// How containers are reached: at their own address, or at a published port of the
        /// engine's machine [default: address]
        #[arg(long, env = "SLOTMUX_DOCKER_REACH", value_name = "HOW", help_heading = CONTAINERS)]
        docker_reach: Reached,

        /// Ports to publish [default: any that are free]
        #[arg(long, env = "SLOTMUX_DOCKER_PORTS", value_name = "FIRST-LAST", help_heading = CONTAINERS)]
        docker_ports: PortRange,

        /// Where the engine listens for published ports [default: 127.0.0.1]
        #[arg(long, env = "SLOTMUX_DOCKER_BIND", value_name = "ADDRESS", help_heading = CONTAINERS)]
        docker_bind: IpAddr,

        /// The engine's machine, as this one reaches it [default: what docker-bind says]
        #[arg(long, env = "SLOTMUX_DOCKER_MACHINE", value_name = "NAME", help_heading = CONTAINERS)]
        docker_machine: String,
    }
}

options! {
    ContainerOptions {
        /// What containers are made of; one whose tag is `local` is never pulled [default: debian:12]
        #[arg(long, env = "SLOTMUX_IMAGE", value_name = "IMAGE", help_heading = IMAGES)]
        image: String,

        /// When the image is pulled: if-missing or never [default: if-missing]
        #[arg(long, env = "SLOTMUX_PULL", value_name = "WHEN", help_heading = IMAGES)]
        pull: PullWhen,

        /// Build the image from this directory, when it is missing or was made of something else
        #[arg(long, env = "SLOTMUX_BUILD", value_name = "DIR", help_heading = IMAGES)]
        build: PathBuf,

        /// By this file in it [default: Dockerfile]
        #[arg(long, env = "SLOTMUX_DOCKERFILE", value_name = "FILE", help_heading = IMAGES)]
        dockerfile: PathBuf,

        /// `NAME=VALUE`, for its `ARG`s.
        #[arg(skip)]
        build_args: List,

        /// What the engine lets the server do: ordinary, for the rung `uid`; namespaces, for the
        /// rung of that name; or best, which tries namespaces first [default: best]
        #[arg(long, env = "SLOTMUX_WALLS", value_name = "WALLS", help_heading = IMAGES)]
        walls: WallsOf,

        /// The user of the server [default: root; with --walls namespaces one without an account]
        #[arg(long, env = "SLOTMUX_USER", value_name = "UID[:GID]", help_heading = IMAGES)]
        user: UserIds,

        /// Memory of a container, in bytes; 0: no limit
        #[arg(long, env = "SLOTMUX_CONTAINER_MEMORY_BYTES_MAX", value_name = "BYTES", help_heading = IMAGES)]
        container_memory_bytes_max: u64,

        /// Processor time of a container, in thousandths of a second for each second; 0: no limit
        #[arg(long, env = "SLOTMUX_CONTAINER_CPU_MILLIS_MAX", value_name = "MILLIS", help_heading = IMAGES)]
        container_cpu_millis_max: u32,

        /// Processes of a container; 0: no limit
        #[arg(long, env = "SLOTMUX_CONTAINER_PROCESSES_MAX", value_name = "N", help_heading = IMAGES)]
        container_processes_max: u32,

        /// Size of the container's /dev/shm, in bytes; 0: as the engine has it
        #[arg(long, env = "SLOTMUX_CONTAINER_SHM_BYTES", value_name = "BYTES", help_heading = IMAGES)]
        container_shm_bytes: u64,

        /// Keep the slots' files in memory, this many bytes at most; 0: in a volume
        #[arg(long, env = "SLOTMUX_DATA_TMPFS_BYTES", value_name = "BYTES", help_heading = IMAGES)]
        data_tmpfs_bytes: u64,

        /// The engine's network for containers [default: bridge]
        #[arg(long, env = "SLOTMUX_CONTAINER_NETWORK", value_name = "NAME", help_heading = IMAGES)]
        container_network: String,

        /// What runs the container: runsc, kata, … [default: what the engine has]
        #[arg(long, env = "SLOTMUX_RUNTIME", value_name = "NAME", help_heading = IMAGES)]
        runtime: String,

        /// Nothing of the image can be written to
        #[arg(
            long, env = "SLOTMUX_READ_ONLY", value_name = "BOOL", help_heading = IMAGES,
            num_args = 0..=1, require_equals = true, default_missing_value = "true"
        )]
        read_only: bool,

        /// `/run:size=1m`, …
        #[arg(skip)]
        tmpfs: List,

        /// In the engine's own words.
        #[arg(skip)]
        security_opt: List,

        #[arg(skip)]
        cap_add: List,

        #[arg(skip)]
        cap_drop: List,
    }
}
