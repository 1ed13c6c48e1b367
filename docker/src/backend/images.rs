//! Images that launches wait for: pulled or built, each once for all who want it.
//!
//! Invariant: of one image there is one pull or build at a time, and whoever came while it was
//! under way has its result; other images do not wait for it.

use crate::{
    causes::chain,
    context::{ContextError, Remembered, pack},
    engine::{BuildOrder, Engine, EngineError, PullTrouble},
    settings::{Build, ContainerSettings, Pull},
};
use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{task::JoinError, time::timeout};

/// For an image as a whole. A pull that stands still ends too.
const PULL_MAX: Duration = Duration::from_mins(30);

/// What an image was built of.
const CONTEXT: &str = "slotmux.context";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("image `{0}` is not there, and its profile says not to pull it")]
    Missing(String),
    #[error(
        "image `{0}` is not there, and an image `:local` is never pulled: make it by \
         `docker build --tag {0} DIRECTORY`, or say in the profile what to build it of"
    )]
    NotMade(String),
    #[error("image `{image}` was not pulled in {} minutes", PULL_MAX.as_secs() / 60)]
    PullTooLong { image: String },
    #[error("image `{image}` cannot be had: {why}")]
    Pull { image: String, why: &'static str, source: EngineError },
    #[error("image `{image}` cannot be built")]
    Context { image: String, source: ContextError },
    #[error("image `{image}` cannot be built")]
    Build { image: String, source: EngineError },
    #[error("look at the context of image `{image}`")]
    Interrupted { image: String, source: JoinError },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

type Had = Result<(), Arc<ImageError>>;

#[derive(Debug, Default)]
pub(super) struct Images {
    under_way: Mutex<HashMap<String, Shared<BoxFuture<'static, Had>>>>,
    /// By image. There are as many as profiles.
    contexts: Mutex<HashMap<String, Arc<Remembered>>>,
}

impl Images {
    /// Returns when it is there, and made of what it is to be made of.
    pub(super) async fn have(&self, engine: &Engine, container: &ContainerSettings) -> Had {
        let work = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            under_way.retain(|_, work| work.peek().is_none());
            let image = container.image.clone();
            under_way.entry(image).or_insert_with(|| self.work(engine, container).shared()).clone()
        };
        work.await
    }

    fn work(&self, engine: &Engine, container: &ContainerSettings) -> BoxFuture<'static, Had> {
        let (engine, image, pull) = (engine.clone(), container.image.clone(), container.pull);
        if let Some(build) = container.build.clone() {
            let remembered = self.remembered(&image);
            return Box::pin(async move {
                built(&engine, &image, build, remembered).await.map_err(Arc::new)
            });
        }
        let is_local = container.is_local();
        Box::pin(async move {
            // Somebody else may have pulled it meanwhile.
            if engine.has_image(&image).await.map_err(|error| Arc::new(error.into()))? {
                return Ok(());
            }
            let had = match pull {
                _ if is_local => Err(ImageError::NotMade(image)),
                Pull::Never => Err(ImageError::Missing(image)),
                Pull::IfMissing => pulled(&engine, image).await,
            };
            had.map_err(Arc::new)
        })
    }

    fn remembered(&self, image: &str) -> Arc<Remembered> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.entry(image.to_owned()).or_default().clone()
    }
}

async fn pulled(engine: &Engine, image: String) -> Result<(), ImageError> {
    tracing::info!(image, "pulling");
    match timeout(PULL_MAX, engine.pull(&image)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => {
            let why = match source.pull_trouble() {
                PullTrouble::Denied if engine.has_credentials(&image).await => {
                    "its registry denies it, with the credentials that Docker's configuration has"
                }
                PullTrouble::Denied => {
                    "its registry denies it, and Docker's configuration has no credentials for it"
                }
                PullTrouble::Unknown => "its registry has no such image",
                PullTrouble::NoPlatform => "there is none for the engine's kind of machine",
                PullTrouble::Unreachable => "the engine cannot reach its registry",
                PullTrouble::Other => "the pull failed",
            };
            Err(ImageError::Pull { image, why, source })
        }
        Err(_elapsed) => Err(ImageError::PullTooLong { image }),
    }
}

async fn built(
    engine: &Engine,
    image: &str,
    build: Build,
    remembered: Arc<Remembered>,
) -> Result<(), ImageError> {
    let args = build.args.clone();
    let looked = tokio::task::spawn_blocking(move || remembered.look(&build)).await;
    let looked =
        looked.map_err(|source| ImageError::Interrupted { image: image.to_owned(), source })?;
    let (context, digest) =
        looked.map_err(|source| ImageError::Context { image: image.to_owned(), source })?;
    let found = engine.find_image(image).await?.map(|found| found.image);
    if found.as_ref().is_some_and(|found| found.labels.get(CONTEXT) == Some(&digest)) {
        return Ok(());
    }
    tracing::info!(image, "building");
    let order = BuildOrder {
        tag: image.to_owned(),
        dockerfile: context.dockerfile.clone(),
        labels: HashMap::from([(CONTEXT.to_owned(), digest)]),
        args,
    };
    let done = engine.build(pack(context), order).await;
    done.map_err(|source| ImageError::Build { image: image.to_owned(), source })?;
    tracing::info!(image, "built");
    // The one before has lost its name. If we made it, and nothing runs in it, it goes.
    if let Some(old) = found.filter(|found| found.labels.contains_key(CONTEXT))
        && old.tags.len() <= 1
        && let Err(error) = engine.remove_image(&old.id).await
    {
        tracing::debug!(image, id = old.id, error = %chain(&error), "the image before is kept");
    }
    Ok(())
}

impl ImageError {
    /// Whether it may be there later, without anybody's doing.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Missing(_) | Self::NotMade(_) | Self::Context { .. } => false,
            Self::Pull { source, .. } => !source.is_denial(),
            Self::Build { source, .. } | Self::Engine(source) => !source.is_refusal(),
            Self::PullTooLong { .. } | Self::Interrupted { .. } => true,
        }
    }
}
