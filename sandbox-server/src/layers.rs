//! Sealed directories that workspaces lie on.
//!
//! Invariant: nothing is ever written below a layer, and it is on the disk for exactly as long as
//! somebody holds it: the last one to let it go throws it away.

pub(crate) mod copy;
pub(crate) mod parts;
pub(crate) mod probe;

use crate::{
    isolate::{Identity, Lower, sys},
    trash::{Trash, open_up},
};
use rustix::fs::CWD;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Layers below one workspace. One more, and they are made into a single one, by copying.
pub(crate) const DEPTH_MAX: usize = 16;

/// Where they are kept.
#[derive(Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    next: AtomicU64,
    trash: Trash,
}

impl Layers {
    /// What an earlier server left there is thrown away.
    pub(crate) fn open(dir: PathBuf, trash: Trash) -> io::Result<Self> {
        trash.take(&dir)?;
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        Ok(Self { dir, next: AtomicU64::new(1), trash })
    }

    /// Makes a layer of a directory that nobody changes any more, by renaming it.
    pub(crate) fn seal(&self, tree: &Path, owner: Option<Identity>) -> io::Result<Arc<Layer>> {
        let dir = self.free_name();
        match fs::rename(tree, &dir) {
            // A directory that its owner may not write cannot be moved: its `..` would change.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(CWD, &sys::c_path(tree)?)?;
                fs::rename(tree, &dir)?;
            }
            other => other?,
        }
        Ok(Arc::new(self.layer(dir, owner)))
    }

    /// An empty one, to be filled before it is given to anybody.
    pub(crate) fn make(&self, owner: Option<Identity>) -> io::Result<Layer> {
        let dir = self.free_name();
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let layer = self.layer(dir, owner);
        if let Some(identity) = owner {
            std::os::unix::fs::chown(&layer.dir, Some(identity.uid), Some(identity.uid))?;
        }
        Ok(layer)
    }

    fn free_name(&self) -> PathBuf {
        self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn layer(&self, dir: PathBuf, owner: Option<Identity>) -> Layer {
        // Without users of their own all slots are the server's.
        let uid = owner.map_or_else(|| rustix::process::geteuid().as_raw(), |it| it.uid);
        Layer { dir, uid, trash: self.trash.clone() }
    }
}

/// One sealed directory, and whose files it holds.
#[derive(Debug)]
pub(crate) struct Layer {
    dir: PathBuf,
    uid: u32,
    trash: Trash,
}

impl Layer {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        if let Err(error) = self.trash.take(&self.dir) {
            tracing::error!(layer = %self.dir.display(), %error, "layer not thrown away");
        }
    }
}

/// What a workspace lies on, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain(Vec<Arc<Layer>>);

impl Chain {
    pub(crate) fn of(layer: Arc<Layer>) -> Self {
        Self(vec![layer])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= DEPTH_MAX
    }

    #[must_use]
    pub(crate) fn with(&self, newest: Arc<Layer>) -> Self {
        let layers = std::iter::once(newest).chain(self.0.iter().cloned());
        Self(layers.collect())
    }

    pub(crate) fn lowers(&self) -> Vec<Lower> {
        self.0.iter().map(|it| Lower { dir: it.dir.clone(), uid: it.uid }).collect()
    }
}

/// All that a slot begins with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    pub(crate) workspace: Chain,
    /// Over the image itself, where that is the slot's root.
    pub(crate) image: Chain,
}

impl Base {
    pub(crate) fn of(workspace: Chain) -> Self {
        Self { workspace, image: Chain::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_there_for_as_long_as_somebody_holds_it() {
        let home = tempfile::tempdir().unwrap();
        let trash = Trash::open(home.path().join("trash")).unwrap();
        let layers = Layers::open(home.path().join("layers"), trash.clone()).unwrap();
        let tree = home.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        let layer = layers.seal(&tree, None).unwrap();
        assert!(!tree.exists());
        let dir = layer.dir().to_owned();
        let first = Chain::of(layer);
        let second = first.with(Arc::new(layers.make(None).unwrap()));
        drop(first);
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"x");
        let newest = second.lowers()[0].dir.clone();
        assert_ne!(newest, dir);
        drop(second);
        assert!(!dir.exists() && !newest.exists());
        trash.settle().unwrap();
        assert_eq!(fs::read_dir(home.path().join("trash")).unwrap().count(), 0);
    }

    #[test]
    fn layers_of_an_earlier_server_are_thrown_away() {
        let home = tempfile::tempdir().unwrap();
        let trash = Trash::open(home.path().join("trash")).unwrap();
        fs::create_dir_all(home.path().join("layers/7/a")).unwrap();
        let layers = Layers::open(home.path().join("layers"), trash).unwrap();
        assert_eq!(fs::read_dir(home.path().join("layers")).unwrap().count(), 0);
        drop(layers);
    }
}
