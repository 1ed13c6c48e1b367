//! Where in the hierarchies a server may make directories of its own.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Servers of one name on one machine, and what killed ones have left.
const NAMESAKES_MAX: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Version {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "cgroup v1",
            Self::V2 => "cgroup v2",
        }
    }
}

/// One controller's directory of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) dir: PathBuf,
}

pub(super) fn directory_name(container: &str) -> String {
    let safe = container.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' });
    format!("slotmux-{}", safe.collect::<String>())
}

/// Fields of a line of `/proc/self/mounts`.
pub(super) fn fields(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// In a cgroup namespace the path may lie outside of what is mounted: then the mount is ours.
pub(super) fn below(mount: &Path, path: &str) -> PathBuf {
    let inner = mount.join(path.trim_start_matches('/'));
    if inner.is_dir() { inner } else { mount.to_owned() }
}

/// A directory that nobody else has, not even a server of the same name: processes in it are ours
/// to kill.
pub(super) fn new_directory(parent: &Path, name: &str) -> Option<PathBuf> {
    for number in 0..NAMESAKES_MAX {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let dir = parent.join(format!("{name}{suffix}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Some(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_read_only) => return None,
        }
    }
    None
}

/// Makes the directory of a slot, or makes use of the one that is there.
pub(super) fn make_usable(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Without `O_CREAT`: a file that the kernel does not offer must not be "written".
pub(super) fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_one_name_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let made = [(); 3].map(|()| new_directory(dir.path(), "slotmux-a").unwrap());
        assert_eq!(made, ["slotmux-a", "slotmux-a-1", "slotmux-a-2"].map(|it| dir.path().join(it)));
    }

    #[test]
    fn a_container_name_is_one_directory() {
        assert_eq!(directory_name("a/../b c"), "slotmux-a----b-c");
    }
}
