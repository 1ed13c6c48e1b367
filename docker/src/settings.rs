//! What containers are made of, checked before any is made.

mod check;

pub use check::{SettingsFault, SettingsFaults};

use slotmux_protocol::ProfileName;
use std::{
    collections::BTreeMap, ffi::OsString, fmt, net::IpAddr, ops::RangeInclusive, path::PathBuf,
};

#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// `unix://PATH`, `tcp://HOST:PORT` or `https://HOST:PORT`. `None`: what `DOCKER_HOST` says, else
    /// the usual socket.
    pub host: Option<String>,
    /// A directory with `ca.pem`, `cert.pem` and `key.pem`, by which `tcp://` is made secure. `None`:
    /// if `DOCKER_TLS_VERIFY` says so, by those in `DOCKER_CERT_PATH` or `~/.docker`.
    pub certificates: Option<PathBuf>,
    /// Where credentials for registries are. `None`: `DOCKER_CONFIG`, else `~/.docker`.
    pub config_dir: Option<PathBuf>,
    /// Whose containers these are. A backend sees and stops those of its own owner only, so that
    /// several may share an engine.
    pub owner: String,
    /// The static sandbox-server, as a file of this machine.
    pub program: PathBuf,
    /// Its first arguments, where it is one of several in `program`.
    pub args_before: Vec<OsString>,
    pub inject: Inject,
    pub reach: Reach,
    /// For every profile that `profiles` does not name.
    pub default: ContainerSettings,
    pub profiles: BTreeMap<ProfileName, ContainerSettings>,
}

/// How `program` gets into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// `Bind` where the engine finds the same file at the same path, which is tried once, else
    /// `Copy`.
    Best,
    /// By the engine's API. For every engine, far ones too.
    Copy,
    /// By a read-only mount: the engine finds the same file at the same path.
    Bind,
}

/// How a container is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// At its own address on its network.
    Address,
    /// At a port of the engine's machine.
    Published(Ports),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Where the engine listens for it.
    pub bind: IpAddr,
    /// `None`: any free port.
    pub range: Option<RangeInclusive<u16>>,
    /// The engine's machine, as we reach it. `None`: `bind` itself.
    pub host: Option<String>,
}

/// What the containers of a profile are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// One whose tag is `local` is never pulled.
    pub image: String,
    /// What `image` is made of, where it is not pulled but built.
    pub build: Option<Build>,
    pub pull: Pull,
    /// Of the container as a whole; 0: no limit. The same holds for the next ones.
    pub memory_bytes_max: u64,
    /// In thousandths of a processor.
    pub cpu_millis_max: u32,
    pub processes_max: u32,
    /// Of `/dev/shm`; 0: as the engine has it.
    pub shm_bytes: u64,
    pub data: Data,
    /// More of them: where, and with which options.
    pub tmpfs: BTreeMap<String, String>,
    /// A network of the engine.
    pub network: String,
    /// `runsc`, `kata`, …; `None`: the engine's default.
    pub runtime: Option<String>,
    /// Nothing of the image can be written to.
    pub read_only: bool,
    pub walls: Walls,
    /// `None`: root, or in namespaces some user of no account, unless slots have the whole image as
    /// their root.
    pub user: Option<User>,
    /// Put behind what `walls` needs, in the engine's own words.
    pub security_opt: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
}

/// How an image is built, when it is missing or was made of something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// A directory of this machine. What its `.dockerignore` leaves out stays here.
    pub context: PathBuf,
    /// In `context`, or anywhere by an absolute path.
    pub dockerfile: PathBuf,
    /// For its `ARG`s.
    pub args: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    Never,
    IfMissing,
}

/// Where slots keep their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// In a volume of the container's own, which goes with it.
    Volume,
    /// In memory.
    Tmpfs { bytes_max: u64 },
}

/// What a container lets the server do, which is what its rung follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walls {
    /// `Namespaces` where a container of the profile gets them, which is tried once, else
    /// `Ordinary`.
    Best,
    /// What the engine gives to every container: the rung `uid`. For slots that have the whole image
    /// as their root the same as below is asked, for a container of root.
    Ordinary,
    /// A filter that permits user namespaces, and an uncovered `/proc`: the rung `namespaces`, for a
    /// container that is not root. Where the machine has no user namespaces the server falls back.
    Namespaces,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl DockerSettings {
    /// Ordinary containers of `image`, reached at their own addresses.
    pub fn new(program: PathBuf, image: impl Into<String>) -> Self {
        Self {
            host: None,
            certificates: None,
            config_dir: None,
            owner: "pool".to_owned(),
            program,
            args_before: Vec::new(),
            inject: Inject::Best,
            reach: Reach::Address,
            default: ContainerSettings::new(image),
            profiles: BTreeMap::new(),
        }
    }

    pub(crate) fn of_profile(&self, profile: &ProfileName) -> &ContainerSettings {
        self.profiles.get(profile).unwrap_or(&self.default)
    }
}

impl Build {
    /// By the file `Dockerfile` in `context`.
    pub fn new(context: PathBuf) -> Self {
        Self { context, dockerfile: "Dockerfile".into(), args: BTreeMap::new() }
    }
}

impl ContainerSettings {
    /// Whether the server starts as root and makes itself `user`: one that was drawn, for whom
    /// nothing in the container is prepared. It takes capabilities that a profile may have dropped.
    pub(crate) fn becomes(&self, user: User) -> bool {
        let takes = ["ALL", "CHOWN", "SETGID", "SETUID"];
        let dropped = self.cap_drop.iter().map(|it| it.trim_start_matches("CAP_"));
        let can = !dropped.into_iter().any(|it| takes.iter().any(|of| of.eq_ignore_ascii_case(it)));
        can && self.user.is_none() && user != User::ROOT
    }

    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            build: None,
            pull: Pull::IfMissing,
            memory_bytes_max: 0,
            cpu_millis_max: 0,
            processes_max: 0,
            shm_bytes: 0,
            data: Data::Volume,
            tmpfs: BTreeMap::new(),
            network: "bridge".to_owned(),
            runtime: None,
            read_only: false,
            walls: Walls::Best,
            user: None,
            security_opt: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
        }
    }

    /// Its tag says that it was made here.
    pub(crate) fn is_local(&self) -> bool {
        self.image.ends_with(":local")
    }
}
