//! A slot's files given to other slots: sealed and shared, or copied.

use super::{
    process::KillSwitch,
    works::{RenewError, Works, make_dir},
};
use crate::{
    files::Workspace,
    isolate::{Identity, ImageUpper},
    layers::{
        Base, Chain, Layers,
        copy::{self, Owner},
    },
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
};
use std::{fs, io, path::Path, sync::Arc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

impl Works {
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.birth.identity
    }

    /// Ends the slot, empties it, and starts it on `base`.
    pub(crate) async fn renew_on(&mut self, base: Base) -> Result<KillSwitch, RenewError> {
        self.clear(base).await?;
        self.begin().await
    }

    /// Ends the slot and leaves nothing of it. It can be renewed.
    pub(crate) async fn throw_away(&mut self) -> Result<(), RenewError> {
        self.clear(Base::default()).await
    }

    /// Starts an ended slot on the files that it had, without its temporary ones.
    pub(crate) async fn start_again(&mut self) -> Result<KillSwitch, RenewError> {
        let tmp = self.birth.tmp();
        self.trash.take(&tmp).map_err(RenewError::Empty)?;
        make_dir(&tmp, 0o700, self.birth.identity).map_err(RenewError::Empty)?;
        // A directory that an overlay has worked in is not taken by another.
        let mut works = vec![(self.birth.work(), !self.base.workspace.is_empty())];
        works.push((self.birth.image().join("work"), self.seals_image()));
        for (work, _) in works.iter().filter(|(_, used)| *used) {
            self.trash.take(work).map_err(RenewError::Empty)?;
            make_dir(work, 0o700, None).map_err(RenewError::Empty)?;
        }
        self.begin().await
    }

    /// Ends what runs in the slot and makes its files into something that slots can lie on. It is
    /// to be renewed on the same; or, after an error, started again.
    pub(crate) async fn seal(
        &mut self,
        layers: &Layers,
        stop: &CancellationToken,
    ) -> Result<Base, RenewError> {
        // It could be copied only with all of the image.
        if self.seals_image() && self.base.image.is_full() {
            return Err(RenewError::TooDeep);
        }
        self.end().await?;
        let workspace = if self.base.workspace.is_full() {
            self.flatten(layers, stop).await.map_err(RenewError::Seal)?
        } else {
            let upper = self.birth.workspace();
            self.seal_upper(&self.base.workspace, &upper, layers).map_err(RenewError::Seal)?
        };
        // Last: nothing that takes long, or room, comes after it is taken away.
        let image = self.seal_image(layers)?;
        Ok(Base { workspace, image })
    }

    /// Where a slot has users of its own, as root in its image has, files stay whose they are.
    fn owner_of_copies(&self) -> Owner {
        match self.birth.identity {
            Some(identity) => Owner::Always(identity),
            None if self.birth.root.is_in_parts() => Owner::Same,
            None => Owner::Us,
        }
    }

    fn seals_image(&self) -> bool {
        self.birth.root.upper() == Some(ImageUpper::Disk)
    }

    fn seal_image(&self, layers: &Layers) -> Result<Chain, RenewError> {
        if !self.seals_image() {
            return Ok(Chain::default());
        }
        let upper = self.birth.image().join("upper");
        if !self.base.image.is_empty() && is_unchanged(&upper, self.birth.root.is_in_parts()) {
            return Ok(self.base.image.clone());
        }
        self.seal_upper(&self.base.image, &upper, layers).map_err(RenewError::Seal)
    }

    fn seal_upper(&self, chain: &Chain, upper: &Path, layers: &Layers) -> io::Result<Chain> {
        if !chain.is_empty() && is_unchanged(upper, false) {
            return Ok(chain.clone());
        }
        Ok(chain.with(layers.seal(upper, self.birth.identity)?))
    }

    /// The whole view in one layer. It can be seen for as long as we hold it open.
    async fn flatten(&self, layers: &Layers, stop: &CancellationToken) -> io::Result<Chain> {
        let from = self.workspace.clone().ok_or(io::ErrorKind::NotFound)?;
        let layer = layers.make(self.birth.identity)?;
        copy(from, open_dir(layer.dir())?, self.owner_of_copies(), stop.clone()).await?;
        Ok(Chain::of(Arc::new(layer)))
    }

    /// Empties the slot and fills it with a copy of `from`, where nothing runs.
    pub(crate) async fn renew_with(
        &mut self,
        from: &Arc<Workspace>,
        stop: &CancellationToken,
    ) -> Result<KillSwitch, RenewError> {
        self.clear(Base::default()).await?;
        let to = open_dir(&self.birth.workspace()).map_err(RenewError::Fill)?;
        let copied = copy(Arc::clone(from), to, self.owner_of_copies(), stop.clone()).await;
        copied.map_err(RenewError::Fill)?;
        self.begin().await
    }

    /// Empties the slot, for its files to be made before anything runs in it.
    pub(crate) async fn clear_to_fill(&mut self) -> Result<Workspace, RenewError> {
        self.clear(Base::default()).await?;
        let max = self.birth.limits.file_bytes_max;
        Workspace::open(&self.birth.workspace(), self.birth.identity, max)
            .map_err(|errno| RenewError::Fill(errno.into()))
    }

    pub(crate) fn workspace(&self) -> Option<&Arc<Workspace>> {
        self.workspace.as_ref()
    }
}

/// Whether nothing was written to an upper directory, or to each of those that are in it.
fn is_unchanged(upper: &Path, in_parts: bool) -> bool {
    let Ok(mut entries) = fs::read_dir(upper) else { return false };
    if in_parts {
        return entries.all(|part| part.is_ok_and(|it| is_unchanged(&it.path(), false)));
    }
    entries.next().is_none()
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

async fn copy(
    from: Arc<Workspace>,
    to: OwnedFd,
    owner: Owner,
    stop: CancellationToken,
) -> io::Result<()> {
    spawn_blocking(move || copy::tree(from.dir().as_fd(), to.as_fd(), owner, &stop))
        .await
        .map_err(io::Error::other)?
}
