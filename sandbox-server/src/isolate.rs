//! The walls round a slot, and the processes that live behind them.
//!
//! `zygote` is this executable started anew: one thread, an empty environment, no secret in its
//! memory. It forks a slot-init for each slot. `init` is that process: it puts up the walls of its
//! rung (`root`, `drop`, `seccomp`, `landlock`), then runs commands for the server until its
//! socket closes, and then ends everything it ever started.
//!
//! Invariant: a slot-init has given up every power before it runs the first command, and nothing
//! that it inherits or holds opens anything of the server's.

pub(crate) mod container_ids;
pub(crate) mod drop;
pub(crate) mod inherited;
pub(crate) mod landlock;
pub(crate) mod pty;
pub(crate) mod root;
pub(crate) mod seccomp;
pub(crate) mod sys;
pub(crate) mod zygote;

use serde::{Deserialize, Serialize};
use slotmux_protocol::{Isolation, Network, SlotLimits};
use std::path::PathBuf;

/// Everything that a slot-init needs to know. Written by the server, read after the fork.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "what the machine has, each for itself")]
pub(crate) struct Birth {
    pub(crate) rung: Isolation,
    pub(crate) network: Network,
    /// Who the commands run as, outside of any user namespace. Absent: as the server.
    pub(crate) identity: Option<Identity>,
    /// The server is root and may give slots a user, but not mount: they do it as an ordinary user
    /// does, in a user namespace.
    pub(crate) mounts_as_slot: bool,
    /// Of the server itself. A process in a fresh user namespace cannot ask for them any more.
    pub(crate) server_uid: u32,
    pub(crate) server_gid: u32,
    /// The slot's directory: `workspace`, `tmp`, and `root` as a mount point.
    pub(crate) slot_dir: PathBuf,
    /// More directories of the host to show, read-only.
    pub(crate) exposed: Vec<PathBuf>,
    /// What lies below the files of the workspace, newest first; with none it is a directory.
    pub(crate) layers: Vec<Lower>,
    pub(crate) root: RootKind,
    /// What lies over the image, newest first, where that is the root.
    pub(crate) image_layers: Vec<Lower>,
    /// What the image is put together from, where it is in parts.
    pub(crate) assembly: Option<Assembly>,
    /// Directories that no root may show, whatever it shows.
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) limits: SlotLimits,
    /// Whether a memory cgroup holds the slot; without one the init watches the memory itself.
    pub(crate) memory_cgroup: bool,
    /// The same for the number of processes, which is an rlimit otherwise.
    pub(crate) pids_cgroup: bool,
    /// The same for processor time, as far as it is counted.
    pub(crate) cpu_time_cgroup: bool,
}

/// A sealed directory, and whose files all that is in it are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lower {
    pub(crate) dir: PathBuf,
    pub(crate) uid: u32,
}

/// What a slot's `/` is on the `namespaces` rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RootKind {
    /// A small directory with the image's system directories in it, read-only.
    Minimal,
    /// The image, copied on write: one overlay, which shows root's files as the slot's.
    Image(ImageUpper),
    /// The same as an overlay for each of its directories, in which the slot is the container's root
    /// without its powers. For who may not mount with other ids.
    Parts(ImageUpper),
}

impl RootKind {
    /// Where changes of the image are kept, if the root is one.
    pub(crate) fn upper(self) -> Option<ImageUpper> {
        match self {
            Self::Minimal => None,
            Self::Image(upper) | Self::Parts(upper) => Some(upper),
        }
    }

    /// For programs: how the image is had, if it is.
    pub(crate) fn image_by(self) -> Option<ImageBy> {
        let by = if self.is_in_parts() { "parts" } else { "idmap" };
        self.upper().map(|upper| ImageBy { by, changes: upper.as_str() })
    }

    pub(crate) fn is_in_parts(self) -> bool {
        matches!(self, Self::Parts(_))
    }
}

/// How the whole image is a slot's root here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageBy {
    /// `idmap`: one overlay, of which each slot is the owner as a user of its own. `parts`: an overlay
    /// for each of its directories, in which slots are the container's root without its powers.
    pub by: &'static str,
    /// On `disk`, or in `memory`.
    pub changes: &'static str,
}

/// What an image in parts is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assembly {
    /// Copies of what lies beside mounts, with empty directories where parts and mounts are.
    pub(crate) base: PathBuf,
    /// Directories of the container with no mount in them, none within another.
    pub(crate) parts: Vec<PathBuf>,
}

/// Where the changes of an image are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ImageUpper {
    Disk,
    Memory,
}

impl ImageUpper {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    /// Nobody's: kills what runs as `uid` without being killed by it.
    pub(crate) reaper_uid: u32,
}

impl Birth {
    pub(crate) fn workspace(&self) -> PathBuf {
        self.slot_dir.join("workspace")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.slot_dir.join("tmp")
    }

    /// The overlay's own, when the workspace is one.
    pub(crate) fn work(&self) -> PathBuf {
        self.slot_dir.join("work")
    }

    /// What was changed of the image.
    pub(crate) fn image(&self) -> PathBuf {
        self.slot_dir.join("image")
    }

    /// Whether its user namespace is what it is born into, and not the last that it enters.
    pub(crate) fn is_born_a_user(&self) -> bool {
        self.identity.is_none() || self.mounts_as_slot
    }

    /// Who the commands are inside.
    pub(crate) fn inside_id(&self) -> u32 {
        match self.root {
            RootKind::Minimal => drop::INSIDE_ID,
            RootKind::Image(_) | RootKind::Parts(_) => 0,
        }
    }

    /// Whether the files of the slot are found through its mounts only.
    pub(crate) fn is_seen_by_views(&self) -> bool {
        self.rung == Isolation::Namespaces
            && (!self.layers.is_empty() || self.root != RootKind::Minimal)
    }

    /// The workspace as the commands see it.
    pub(crate) fn workspace_inside(&self) -> PathBuf {
        match self.rung {
            Isolation::Namespaces => PathBuf::from("/workspace"),
            _ => self.workspace(),
        }
    }

    pub(crate) fn tmp_inside(&self) -> PathBuf {
        match self.rung {
            Isolation::Namespaces => PathBuf::from("/tmp"),
            _ => self.tmp(),
        }
    }
}

/// Where commands are looked for, inside and outside.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The step of putting up walls that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub(crate) struct WallError {
    pub(crate) step: String,
    pub(crate) source: std::io::Error,
}

/// Names the step that an I/O error belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, WallError>;
}

impl<T, E: Into<std::io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, WallError> {
        self.map_err(|error| WallError { step: step.to_owned(), source: error.into() })
    }
}
