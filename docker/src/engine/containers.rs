//! Containers from their making to their removal.

use super::{Engine, EngineError, error::Doing, found::Found, lists::encoded};
use bollard::{
    errors::Error,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptions, KillContainerOptions, ListVolumesOptions, RemoveContainerOptions,
        RemoveVolumeOptions, StopContainerOptions,
    },
};
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};

/// How much longer than its grace a stop may take.
const STOP_SLACK: Duration = Duration::from_mins(1);

/// How long a removal that somebody else has begun may take.
const REMOVAL_MAX: Duration = Duration::from_secs(20);
const LOOKS_APART: Duration = Duration::from_millis(20);

impl Engine {
    /// Its id.
    pub async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let created = self.docker().await?.create_container(Some(options), body).await;
        let created = created.doing(format_args!("create container `{name}`"))?;
        for warning in created.warnings {
            tracing::debug!(container = name, warning, "engine warned");
        }
        Ok(created.id)
    }

    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.docker().await?.start_container(id, None).await.doing("start the container")
    }

    /// Asks for its end, and forces it after `grace`. One that ended is stopped already.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        // Whole seconds, up: a short grace never becomes none.
        let grace_s = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let t = Some(i32::try_from(grace_s).unwrap_or(i32::MAX));
        let docker = self.docker().await?.with_timeout(grace.saturating_add(STOP_SLACK));
        let options = StopContainerOptions { t, ..Default::default() };
        docker.stop_container(id, Some(options)).await.doing("stop the container")
    }

    pub async fn kill(&self, id: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
        let killed = self.docker().await?.kill_container(id, Some(options)).await;
        killed.doing("kill the container")
    }

    /// By force, with its volumes. Whether it was there.
    pub async fn remove(&self, id: &str) -> Result<bool, EngineError> {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let removed = self.docker().await?.remove_container(id, Some(options)).await;
        match removed.doing("remove the container") {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            // Somebody else is at it.
            Err(error) if error.is_conflict() => {
                self.leaves(id).await?.then_some(true).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Names of volumes with this label that are in no container.
    pub async fn loose_volumes(&self, label: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([
            ("dangling".to_owned(), vec!["true".to_owned()]),
            ("label".to_owned(), vec![label.to_owned()]),
        ]);
        let options = ListVolumesOptions { filters: Some(filters) };
        let listed = self.docker().await?.list_volumes(Some(options)).await;
        let volumes = listed.doing("list volumes")?.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|it| it.name).collect())
    }

    /// What a container leaves that was removed without its volumes. Idempotent.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.docker().await?.remove_volume(name, None::<RemoveVolumeOptions>).await;
        match removed.doing(format_args!("remove volume `{name}`")) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn leaves(&self, id: &str) -> Result<bool, EngineError> {
        let deadline = Instant::now() + REMOVAL_MAX;
        while self.find(id).await?.is_some() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(LOOKS_APART).await;
        }
        Ok(true)
    }

    /// By id or by name.
    pub async fn find(&self, id: &str) -> Result<Option<Found>, EngineError> {
        let path = format!("/containers/{}/json", encoded(id));
        let read = self.connected().await?.transport.read(&path).await;
        let found = read.and_then(|bytes| Found::parse(&bytes).map_err(Error::from));
        match found.doing(format_args!("look at container `{id}`")) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
