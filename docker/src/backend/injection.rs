//! How the server gets into containers of an engine: found out by a container that is never started.

use super::{Shared, launch::LaunchError};
use crate::{
    causes::chain,
    plan::{DIR, SERVER_NAME},
    settings::Inject,
};
use futures_util::StreamExt as _;
use slotmux_backend::LaunchSpec;
use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};
use tokio::time::timeout;

const LOOK_MAX: Duration = Duration::from_secs(10);
/// Whoever the server's user is, he has to read it and to run it.
const FOR_ALL: u32 = 0o005;

/// Of an archive, and the first entry's header.
const HEADER_BYTES: usize = 512;

/// What tells a file from another one at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified_s: u64,
}

impl Shared {
    pub(super) async fn injection(&self, spec: &LaunchSpec) -> Result<Inject, LaunchError> {
        match self.settings.inject {
            Inject::Best => {
                // Outside: whoever waits in there is not to wait for another profile's image.
                if self.inject.get().is_none() {
                    self.have_image(spec).await?;
                }
                Ok(*self.inject.get_or_try_init(|| self.try_bind(spec)).await?)
            }
            named => Ok(named),
        }
    }

    /// An engine elsewhere may have another file there, or a directory that it makes for us.
    async fn try_bind(&self, spec: &LaunchSpec) -> Result<Inject, LaunchError> {
        let spec = Self::look_spec(spec)?;
        let choice = self.choose(&spec, false, Inject::Bind)?;
        let id = match self.create_for_a_look(&spec, choice).await {
            Ok(id) => id,
            Err(LaunchError::Engine(error)) if self.is_about_the_mount(&chain(&error)) => {
                return Ok(Inject::Copy);
            }
            Err(error) => return Err(error),
        };
        let there = timeout(LOOK_MAX, self.stamp_there(&id)).await.ok().flatten();
        self.engine.remove(&id).await?;
        let same = there.is_some() && there == self.stamp_here();
        tracing::debug!(?there, same, "looked at what the engine would mount");
        Ok(if same { Inject::Bind } else { Inject::Copy })
    }

    fn is_about_the_mount(&self, said: &str) -> bool {
        said.contains(&*self.settings.program.to_string_lossy())
    }

    fn stamp_here(&self) -> Option<Stamp> {
        let meta = fs::metadata(&self.settings.program).ok()?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Stamp { bytes: meta.len(), modified_s: modified.as_secs() })
    }

    /// Whatever goes wrong, it is not the same file as far as we know.
    async fn stamp_there(&self, id: &str) -> Option<Stamp> {
        let mut archive = self.engine.get(id, &format!("{DIR}/{SERVER_NAME}")).await.ok()?;
        let mut head = Vec::new();
        while head.len() < HEADER_BYTES {
            head.extend_from_slice(&archive.next().await?.ok()?);
        }
        let header = tar::Header::from_byte_slice(&head[..HEADER_BYTES]);
        let is_for_all = header.mode().ok()? & FOR_ALL == FOR_ALL;
        (header.entry_type().is_file() && is_for_all).then_some(())?;
        Some(Stamp { bytes: header.size().ok()?, modified_s: header.mtime().ok()? })
    }
}
