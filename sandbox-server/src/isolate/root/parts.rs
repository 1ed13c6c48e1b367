//! The whole image as the slot's root, put together from an overlay for each of its directories.
//!
//! An overlay of `/` itself would show files with other ids, or hold mounts that the kernel does
//! not let a user namespace take away from before a directory. So what has mounts in it was copied
//! once (`layers::parts`), and the rest is laid over as it is. The slot is the container's root
//! then, without its powers.
//!
//! Invariant: what a slot writes goes to directories of its own; nothing of the container is shown
//! but through an overlay, or read-only.

use super::{
    image::{self, plain},
    mount_proc,
    overlay::{Changes, Stack},
    pivot, show, tmpfs, workspace,
};
use crate::isolate::{Birth, ImageUpper, Lower, Step, WallError};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::Path,
};

pub(super) fn enter(birth: &Birth, upper: ImageUpper) -> Result<(), WallError> {
    let assembly = birth
        .assembly
        .as_ref()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .step("find the image's parts")?;
    let stage = birth.slot_dir.join("root");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .step("make mounts private")?;
    let names = image::read_names();
    tmpfs(&stage, image::STAGE_OPTIONS, MountFlags::NOSUID | MountFlags::NODEV)
        .step("mount the stage")?;
    let root = stage.join("new");
    fs::create_dir(&root).step("make the root")?;
    let home = image::home(birth, upper, &stage)?;
    let parts = Parts { birth, home: &home, stage: &stage, root: &root };
    parts.lay_over(0, &assembly.base, Path::new("")).step("mount the image's root")?;
    for (number, part) in (1..).zip(&assembly.parts) {
        let inside = part.strip_prefix("/").unwrap_or(part);
        parts
            .lay_over(number, part, inside)
            .step(&format!("mount the image's {}", part.display()))?;
    }
    image::write_names(&root, &names, birth).step("write the names of hosts")?;
    image::private_dirs(&root, birth)?;
    plain(&root, Path::new("workspace")).step("make the workspace's place")?;
    workspace(&stage.join("workspace"), &root, birth)?;
    for path in &birth.exposed {
        plain(&root, path.strip_prefix("/").unwrap_or(path)).step("make a system directory")?;
        show(&root, path)?;
    }
    mount_proc(&root, birth)?;
    pivot(&root, false)
}

struct Parts<'a> {
    birth: &'a Birth,
    home: &'a Path,
    stage: &'a Path,
    root: &'a Path,
}

impl Parts<'_> {
    /// `below` at `inside`, with what lies over it, and what the slot will make of it.
    fn lay_over(&self, number: usize, below: &Path, inside: &Path) -> io::Result<()> {
        let name = number.to_string();
        let changes = Changes {
            upper: self.home.join("upper").join(&name),
            work: self.home.join("work").join(&name),
        };
        // As the slot that was forked had made it.
        let newest = self.birth.image_layers.first().map(|it| it.dir.join(&name));
        make_like(&changes.upper, newest.as_deref().filter(|it| it.is_dir()).unwrap_or(below))?;
        // Not one that another overlay has worked in.
        fs::DirBuilder::new().mode(0o700).create(&changes.work)?;
        let layers = self.birth.image_layers.iter();
        let layers = layers.map(|it| Lower { dir: it.dir.join(&name), uid: it.uid });
        let stack = Stack {
            lowers: layers.chain([Lower { dir: below.to_owned(), uid: 0 }]).collect(),
            shown_as: None,
            changes: Some(changes),
            unprivileged: true,
        };
        plain(self.root, inside)?;
        stack.mount(&self.stage.join("layers"), &self.root.join(inside))
    }
}

/// An overlay shows its topmost directory as its upper one is. One that is there was made so.
fn make_like(upper: &Path, below: &Path) -> io::Result<()> {
    match fs::create_dir(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    let meta = fs::metadata(below)?;
    chown(upper, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(upper, meta.permissions())
}
