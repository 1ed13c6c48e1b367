//! The whole image as the slot's root, copy on write: the slot is root in it, and what it changes
//! goes with the slot.
//!
//! Invariant: of what is mounted in the container nothing is seen but the image itself; and the
//! server's own directory, where it lies in the image, is not there.

use super::{
    devices, mount_proc,
    overlay::{Changes, Stack},
    pivot, show, sized, tmpfs, workspace,
};
use crate::isolate::{Birth, ImageUpper, Lower, Step, WallError};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount},
};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::{Path, PathBuf},
};

pub(super) const STAGE_OPTIONS: &str = "size=1m,nr_inodes=512,mode=755";
const COVER_OPTIONS: &str = "size=4k,nr_inodes=2,mode=700";
/// Directories that are the slot's own and begin empty. What lies below them is covered already.
pub(crate) const PRIVATE: [&str; 5] = ["tmp", "run", "dev", "proc", "sys"];
/// Files that container engines mount into an image, or lead out of it.
const NAMES: [&str; 3] = ["etc/resolv.conf", "etc/hosts", "etc/hostname"];
/// None of them is as large.
const NAMES_BYTES_MAX: u64 = 256 << 10;

pub(super) fn enter(birth: &Birth, upper: ImageUpper) -> Result<(), WallError> {
    let stage = birth.slot_dir.join("root");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .step("make mounts private")?;
    let names = read_names();
    tmpfs(&stage, STAGE_OPTIONS, MountFlags::NOSUID | MountFlags::NODEV).step("mount the stage")?;
    let root = stage.join("new");
    fs::create_dir(&root).step("make the root")?;
    stack(birth, upper, &stage)?
        .mount(&stage.join("layers"), &root)
        .step("mount the image's root")?;
    if !birth.image_layers.is_empty() {
        unmount(stage.join("image"), UnmountFlags::DETACH).step("let the image's view go")?;
    }
    write_names(&root, &names, birth).step("write the names of hosts")?;
    private_dirs(&root, birth)?;
    plain(&root, Path::new("workspace")).step("make the workspace's place")?;
    workspace(&stage.join("workspace"), &root, birth)?;
    for path in &birth.exposed {
        plain(&root, path.strip_prefix("/").unwrap_or(path)).step("make a system directory")?;
        show(&root, path)?;
    }
    mount_proc(&root, birth)?;
    pivot(&root, false)
}

/// Makes `inside` a directory that is reached through directories only. A slot may have made the
/// tree, and must not lead us out of it; nothing of it runs meanwhile.
pub(super) fn plain(root: &Path, inside: &Path) -> io::Result<()> {
    let mut so_far = root.to_owned();
    for part in inside.components() {
        so_far.push(part);
        match fs::symlink_metadata(&so_far) {
            Ok(it) if it.is_dir() => continue,
            Ok(_) => fs::remove_file(&so_far)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(&so_far)?;
    }
    Ok(())
}

/// Whether all of it is there, and nothing on the way is a link.
fn is_plain(root: &Path, inside: &Path) -> bool {
    let mut so_far = root.to_owned();
    inside.components().all(|part| {
        so_far.push(part);
        fs::symlink_metadata(&so_far).is_ok_and(|it| it.is_dir())
    })
}

fn stack(birth: &Birth, upper: ImageUpper, stage: &Path) -> Result<Stack, WallError> {
    let home = home(birth, upper, stage)?;
    Ok(Stack {
        lowers: lowers(birth, stage)?,
        shown_as: shown_as(birth),
        changes: Some(Changes { upper: home.join("upper"), work: home.join("work") }),
        unprivileged: birth.is_born_a_user(),
    })
}

/// Where changes go.
pub(super) fn home(birth: &Birth, upper: ImageUpper, stage: &Path) -> Result<PathBuf, WallError> {
    match upper {
        ImageUpper::Disk => Ok(birth.image()),
        ImageUpper::Memory => {
            let memory = stage.join("memory");
            fs::create_dir(&memory).step("make the image's memory")?;
            tmpfs(&memory, &sized(birth.limits.tmp_bytes_max), MountFlags::NOSUID)
                .step("mount the image's memory")?;
            make_upper(&memory, birth).step("make the image's directories")?;
            Ok(memory)
        }
    }
}

fn shown_as(birth: &Birth) -> Option<u32> {
    birth.identity.map(|it| it.uid)
}

/// Layers may lie in the image itself, and the kernel lets none of the directories of an overlay
/// lie in another. It does not know when the other is seen through an overlay of its own.
fn lowers(birth: &Birth, stage: &Path) -> Result<Vec<Lower>, WallError> {
    let uid = shown_as(birth).unwrap_or(0);
    let cover = stage.join("cover");
    fs::create_dir(&cover).step("make a place for what covers")?;
    for path in &birth.hidden {
        let inside = path.strip_prefix("/").unwrap_or(path);
        hide(&cover, inside, birth).step("cover the server's directory")?;
    }
    let image = vec![Lower { dir: cover, uid }, Lower { dir: PathBuf::from("/"), uid: 0 }];
    if birth.image_layers.is_empty() {
        return Ok(image);
    }
    let seen = stage.join("image");
    fs::create_dir(&seen).step("make a place for the image")?;
    let stack = Stack {
        lowers: image,
        shown_as: shown_as(birth),
        changes: None,
        unprivileged: birth.is_born_a_user(),
    };
    stack.mount(&stage.join("layers-of-image"), &seen).step("show the image")?;
    Ok(birth.image_layers.iter().cloned().chain([Lower { dir: seen, uid }]).collect())
}

/// Has a layer say that `inside` is not there. A mount over it would not do: the slot may rename
/// what it is in, and have it restored under that name.
fn hide(cover: &Path, inside: &Path, birth: &Birth) -> io::Result<()> {
    let mut so_far = PathBuf::new();
    for part in inside.parent().iter().flat_map(|it| it.components()) {
        so_far.push(part);
        let covering = cover.join(&so_far);
        fs::create_dir(&covering)?;
        // What it is seen as is what this layer has.
        let image = fs::symlink_metadata(Path::new("/").join(&so_far))?;
        fs::set_permissions(&covering, image.permissions())?;
        if let Some(identity) = birth.identity {
            let shown = |id| if id == 0 { identity.uid } else { 0 };
            chown(&covering, Some(shown(image.uid())), Some(shown(image.gid())))?;
        }
    }
    let whiteout = makedev(0, 0);
    Ok(mknodat(CWD, cover.join(inside), FileType::CharacterDevice, Mode::empty(), whiteout)?)
}

/// Makes the two directories of an overlay in `home`; the upper one is to be the slot's `/`.
pub(crate) fn make_upper(home: &Path, birth: &Birth) -> io::Result<()> {
    let upper = home.join("upper");
    fs::DirBuilder::new().mode(0o755).create(&upper)?;
    fs::DirBuilder::new().mode(0o700).create(home.join("work"))?;
    match birth.identity {
        Some(identity) => chown(upper, Some(identity.uid), Some(identity.uid)),
        None => Ok(()),
    }
}

pub(super) fn private_dirs(root: &Path, birth: &Birth) -> Result<(), WallError> {
    for name in PRIVATE {
        plain(root, Path::new(name)).step("make a directory of the root")?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    tmpfs(&root.join("tmp"), &sized(birth.limits.tmp_bytes_max), flags).step("mount /tmp")?;
    let run = format!("size={},nr_inodes=4096,mode=755", 1 << 20);
    tmpfs(&root.join("run"), &run, flags).step("mount /run")?;
    if let Some(identity) = birth.identity {
        chown(root.join("run"), Some(identity.uid), Some(identity.uid)).step("give /run away")?;
    }
    tmpfs(&root.join("sys"), COVER_OPTIONS, flags | MountFlags::RDONLY).step("cover /sys")?;
    devices(root, birth.limits.tmp_bytes_max)
}

pub(super) fn read_names() -> Vec<(&'static str, Vec<u8>)> {
    let read = |name: &&'static str| {
        let path = Path::new("/").join(name);
        let small = fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() <= NAMES_BYTES_MAX);
        small.then(|| fs::read(&path).ok()).flatten().map(|content| (*name, content))
    };
    NAMES.iter().filter_map(read).collect()
}

/// As the container has them, where the image alone has not.
pub(super) fn write_names(root: &Path, names: &[(&str, Vec<u8>)], birth: &Birth) -> io::Result<()> {
    for (name, content) in names {
        let inside = root.join(name);
        if !is_plain(root, Path::new(name).parent().unwrap_or(Path::new(""))) {
            // The slot has its own idea of where such files are.
            continue;
        }
        let plain = fs::symlink_metadata(&inside).is_ok_and(|it| it.is_file());
        if plain && fs::read(&inside).is_ok_and(|it| it == *content) {
            continue;
        }
        if let Err(error) = fs::remove_file(&inside)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        fs::write(&inside, content)?;
        if let Some(identity) = birth.identity {
            chown(&inside, Some(identity.uid), Some(identity.uid))?;
        }
    }
    Ok(())
}
