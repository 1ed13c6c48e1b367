//! What this machine's kernel and the data directory's file system allow: found out by doing it in
//! a slot that is nobody's.

use super::{Base, Chain, Layers};
use crate::{
    isolate::{Identity, ImageUpper, RootKind},
    slot::Works,
};
use rustix::fd::AsFd;
use std::{fs::File, io, sync::Arc};

/// Writes to a file that lies below, to which the slot's user has to have the right, and removes
/// another.
const OVERLAY: &str = "[ -O kept ] && echo more >> kept && rm gone && mkdir dir && exit 7";
const IMAGE: &str = "f=/usr/.slot-$$; echo text > $f && rm $f && exit 7; exit 1";

/// How a workspace gets what another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// It lies on it, and keeps its own changes apart.
    Overlay,
    /// It gets a copy, for this reason.
    Copy(String),
}

impl Sharing {
    /// `works` are those of a slot of its own on the best rung of the server.
    pub(crate) async fn probe(mut works: Works, layers: &Layers) -> Self {
        match try_overlay(&mut works, layers).await {
            Ok(()) => Self::Overlay,
            Err(why) => Self::Copy(why),
        }
    }
}

async fn try_overlay(works: &mut Works, layers: &Layers) -> Result<(), String> {
    // Somebody else's, as that of another slot is.
    let owner = works.identity().map(|it| Identity { uid: it.reaper_uid, ..it });
    let layer = make_layer(layers, owner).map_err(|error| format!("make a layer: {error}"))?;
    works.renew_on(Base::of(Chain::of(layer))).await.map_err(|error| crate::chain(&error))?;
    let ran = works.try_out(OVERLAY).await;
    works.throw_away().await.map_err(|error| crate::chain(&error))?;
    ran
}

fn make_layer(layers: &Layers, owner: Option<Identity>) -> io::Result<Arc<super::Layer>> {
    let layer = layers.make(owner)?;
    for name in ["kept", "gone"] {
        let file = File::create(layer.dir().join(name))?;
        if let Some(identity) = owner {
            rustix::fs::fchown(
                file.as_fd(),
                Some(rustix::fs::Uid::from_raw(identity.uid)),
                Some(rustix::fs::Gid::from_raw(identity.uid)),
            )?;
        }
    }
    Ok(Arc::new(layer))
}

/// The best of the ways in which a whole image can be a slot's root here, or why there is none.
pub(crate) async fn image_root(
    works: impl Fn(RootKind) -> Result<Works, String>,
) -> Result<RootKind, String> {
    let mut refusals = Vec::new();
    for (root, name) in [
        (RootKind::Image(ImageUpper::Disk), "as one overlay, with its changes on disk"),
        (RootKind::Image(ImageUpper::Memory), "as one overlay, with its changes in memory"),
        (RootKind::Parts(ImageUpper::Disk), "in parts, with its changes on disk"),
        (RootKind::Parts(ImageUpper::Memory), "in parts, with its changes in memory"),
    ] {
        let tried = match works(root) {
            Ok(works) => try_image(works).await,
            Err(why) => Err(why),
        };
        match tried {
            Ok(()) => return Ok(root),
            Err(why) => refusals.push(format!("{name}: {why}")),
        }
    }
    Err(refusals.join("; "))
}

async fn try_image(mut works: Works) -> Result<(), String> {
    works.renew().await.map_err(|error| crate::chain(&error))?;
    let ran = works.try_out(IMAGE).await;
    works.throw_away().await.map_err(|error| crate::chain(&error))?;
    ran.map_err(|why| {
        format!("{why}: the slot is not the owner of the image's files, which needs root")
    })
}
