//! The trait for a Docker engine.

mod adopt;
mod images;
mod injection;
mod launch;
mod shared;
mod walls;

pub(crate) use images::ImageError;
pub(crate) use shared::Shared;

use crate::{
    diagnose,
    names::engine_name,
    settings::{DockerSettings, SettingsFaults},
};
use futures_util::future::BoxFuture;
use slotmux_backend::{Backend, BackendError, Diagnosis, Facts, LaunchSpec, Seen};
use slotmux_protocol::ContainerId;
use std::{future::Future, path, sync::Arc, time::Duration};

/// Containers of a Docker engine. Dropping it leaves them running.
#[derive(Debug)]
pub struct DockerBackend {
    shared: Arc<Shared>,
}

impl DockerBackend {
    /// Asks the engine nothing yet: it may be down, and come up later.
    pub fn new(settings: DockerSettings) -> Result<Self, SettingsFaults> {
        // A pool may change its directory.
        let program = path::absolute(&settings.program).unwrap_or(settings.program);
        let settings = DockerSettings { program, ..settings };
        settings.check()?;
        Ok(Self { shared: Arc::new(Shared::new(settings)) })
    }
}

impl Drop for DockerBackend {
    fn drop(&mut self) {
        self.shared.teller.close();
    }
}

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn launch(&self, spec: LaunchSpec) -> BoxFuture<'_, Result<(), BackendError>> {
        let doing = format!("launch container `{}`", spec.container);
        to_the_end(doing, self.shared.clone().launch(spec))
    }

    fn stop<'a>(
        &'a self,
        container: &'a ContainerId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let doing = format!("stop container `{container}`");
        to_the_end(doing, self.shared.clone().stop(container.clone(), grace))
    }

    fn list<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Vec<Seen>, BackendError>> {
        let doing = format!("list containers of pool `{pool}`");
        to_the_end(doing, self.shared.clone().list(pool.to_owned()))
    }

    fn facts(&self) -> Facts {
        self.shared.teller.subscribe()
    }

    fn logs<'a>(
        &'a self,
        container: &'a ContainerId,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<String, BackendError>> {
        let doing = format!("read logs of container `{container}`");
        Box::pin(async move {
            let id = match self.shared.held(container) {
                Some(held) => held.id.clone(),
                None => engine_name(&self.shared.settings.owner, container).map_err(|error| {
                    BackendError::Refused { doing: doing.clone(), source: error.into() }
                })?,
            };
            let log = self.shared.engine.log_end(&id, bytes_max).await;
            log.map_err(|error| error.into_backend_error(doing))
        })
    }

    fn diagnose(&self) -> BoxFuture<'_, Diagnosis> {
        Box::pin(diagnose::look(&self.shared.engine, &self.shared.settings))
    }
}

/// Runs `work` to its end even if its caller goes away.
fn to_the_end<T: Send + 'static>(
    doing: String,
    work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> BoxFuture<'static, Result<T, BackendError>> {
    Box::pin(async move {
        let joined = tokio::spawn(work).await;
        joined.unwrap_or_else(|error| Err(BackendError::Unknown { doing, source: error.into() }))
    })
}
