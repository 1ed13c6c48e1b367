//! A copy-on-write view of sealed directories.
//!
//! Invariant: what lies below is never written to, and what was made of it lies in two directories
//! of the slot's own, which a reset throws away.

use super::idmap::{self, Owners};
use crate::isolate::{Birth, Lower, Step, WallError};
use rustix::{
    fs::symlink,
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::chdir,
};
use std::{
    ffi::CString,
    fs, io,
    path::{Path, PathBuf},
};

/// Of one overlay.
pub(super) struct Stack {
    /// Newest first.
    pub(super) lowers: Vec<Lower>,
    /// Who all files below are shown as. Absent: as who they are.
    pub(super) shown_as: Option<u32>,
    /// What is written goes there. Without it nothing can be, and there are two below at least.
    pub(super) changes: Option<Changes>,
    /// Mounted with the powers of a user namespace only.
    pub(super) unprivileged: bool,
}

/// Two directories of one file system.
pub(super) struct Changes {
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

/// The workspace: what the slot has changed over what it was given.
pub(super) fn workspace(stage: &Path, birth: &Birth, at: &Path) -> Result<(), WallError> {
    let stack = Stack {
        lowers: birth.layers.clone(),
        shown_as: birth.identity.map(|it| it.uid),
        changes: Some(Changes { upper: birth.workspace(), work: birth.work() }),
        unprivileged: birth.is_born_a_user(),
    };
    stack.mount(stage, at).step("mount the workspace's layers")
}

impl Stack {
    /// `stage` is made for the moment, on a file system of the slot's own.
    pub(super) fn mount(&self, stage: &Path, at: &Path) -> io::Result<()> {
        fs::create_dir(stage)?;
        // By short names of our own: the kernel takes a page of options, and gives `,` and `:` a
        // meaning.
        if let Some(changes) = &self.changes {
            symlink(&changes.upper, stage.join("u"))?;
            symlink(&changes.work, stage.join("w"))?;
        }
        let mut names = Vec::new();
        for (number, lower) in self.lowers.iter().enumerate() {
            let name = number.to_string();
            let shown = stage.join(&name);
            match self.owners(lower) {
                None => symlink(&lower.dir, &shown)?,
                owners => {
                    fs::create_dir(&shown)?;
                    idmap::show(&lower.dir, &shown, owners)?;
                }
            }
            names.push(name);
        }
        chdir(stage)?;
        let options = CString::new(self.options(&names)).map_err(io::Error::other)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("slot", at, "overlay", flags, options.as_c_str())?;
        chdir("/")?;
        for name in &names {
            let shown = stage.join(name);
            if shown.is_symlink() {
                continue;
            }
            // The overlay has views of its own by now.
            unmount(&shown, UnmountFlags::DETACH)?;
        }
        fs::remove_dir_all(stage)
    }

    fn owners(&self, lower: &Lower) -> Option<Owners> {
        let shown = self.shown_as.filter(|shown| *shown != lower.uid)?;
        Some(Owners { on_disk: lower.uid, shown })
    }

    fn options(&self, names: &[String]) -> String {
        let lowers = names.join(":");
        // Attributes that a user may set are never followed.
        let who = if self.unprivileged { "userxattr" } else { "redirect_dir=on" };
        if self.changes.is_none() {
            return format!("lowerdir={lowers},index=off,metacopy=off,{who}");
        }
        // Volatile: an unmount would otherwise write the whole disk's caches back, and a reset
        // wait for it. What a crash of the machine loses is lost with the slot anyhow.
        format!("lowerdir={lowers},upperdir=u,workdir=w,index=off,metacopy=off,volatile,{who}")
    }
}
