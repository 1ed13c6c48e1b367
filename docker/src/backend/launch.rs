//! From a wish to a container that runs: create, put the server in, start.
//!
//! Invariant: what was created and cannot be started is removed, or the answer is that we do not
//! know.

use super::{Shared, adopt::removed, images::ImageError};
use crate::{
    causes::chain,
    engine::{EngineError, State},
    keeper::Stage,
    names::{self, NameTooLong, engine_name},
    parcel::ParcelError,
    plan::{Choice, DIR, Plan},
    seen::Container,
    settings::{Data, Inject, User},
    token,
};
use bollard::models::ContainerCreateBody;
use slotmux_backend::{BackendError, Fact, LaunchSpec};
use slotmux_protocol::{ContainerId, Isolation, Root};
use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::JoinError;

/// Should nobody be left to remove it.
const LOOK_LIFETIME: Duration = Duration::from_mins(2);

#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("name it")]
    Name(#[from] NameTooLong),
    #[error("draw its token")]
    Draw(#[from] io::Error),
    #[error("pack the sandbox-server")]
    Pack(#[from] ParcelError),
    #[error("pack the sandbox-server")]
    Interrupted(#[from] JoinError),
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    #[error("the engine has another container of this name, which is not ours")]
    Taken,
    #[error("somebody removed it while it was started")]
    Lost,
    #[error("whether it gets namespaces was not to be found out: {0}")]
    Untried(String),
    #[error("it has no address on network `{0}`")]
    NoAddress(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Shared {
    pub(super) async fn launch(self: Arc<Self>, spec: LaunchSpec) -> Result<(), BackendError> {
        let doing = format!("launch container `{}`", spec.container);
        self.watch();
        let _turn = self.turn(&spec.container).await;
        if self.runs_already(&spec, &doing).await? {
            return Ok(());
        }
        let refuse = |error: LaunchError| error.into_backend_error(&doing, false);
        let inject = self.injection(&spec).await.map_err(refuse)?;
        let opens = self.opens(&spec, inject).await.map_err(refuse)?;
        let choice = self.choose(&spec, opens, inject).map_err(refuse)?;
        let id = self.create(&spec, choice).await.map_err(refuse)?;
        match self.start(&spec, &id, choice).await {
            Ok(container) => {
                self.keep(container, false);
                Ok(())
            }
            Err(error) => {
                let discarded = self.engine.remove(&id).await;
                if let Err(kept) = &discarded {
                    tracing::error!(id, error = %chain(kept), "container not removed");
                    return Err(BackendError::Unknown { doing, source: error.into() });
                }
                Err(error.into_backend_error(&doing, true))
            }
        }
    }

    /// Whether there is such a container. If it is ready, that is told again.
    async fn runs_already(
        self: &Arc<Self>,
        spec: &LaunchSpec,
        doing: &str,
    ) -> Result<bool, BackendError> {
        let mut held = self.held(&spec.container);
        if held.is_none() {
            let adopted = self.adopt_by_name(&spec.container).await;
            held = adopted.map_err(|error| error.into_backend_error(doing))?;
        }
        let Some(held) = held else { return Ok(false) };
        let stage = held.stage.borrow().clone();
        match stage {
            Stage::Starting => Ok(true),
            Stage::Ready(address) => {
                let container = spec.container.clone();
                self.teller.tell(Fact::Ready { container, address }).await;
                Ok(true)
            }
            Stage::Ended | Stage::Removed(_) => {
                removed(&held, Duration::ZERO, doing.to_owned()).await.map(|()| false)
            }
        }
    }

    pub(super) fn choose(
        &self,
        spec: &LaunchSpec,
        opens: bool,
        inject: Inject,
    ) -> Result<Choice, LaunchError> {
        let container = self.settings.of_profile(&spec.labels.profile);
        let user = match container.user {
            Some(user) => user,
            // The image's files are root's: slots get them by way of the server's own ids.
            None if spec.root == Root::Image => User::ROOT,
            None if opens => token::draw_user()?,
            None => User::ROOT,
        };
        Ok(Choice { user, opens, inject })
    }

    async fn create(&self, spec: &LaunchSpec, choice: Choice) -> Result<String, LaunchError> {
        let token = token::draw_token()?;
        let now = SystemTime::now();
        let plan = Plan { settings: &self.settings, spec, token: &token, choice, now };
        self.create_as(spec, plan.body()).await
    }

    /// One for a look, which belongs to no pool: nobody adopts it, and any pool removes it when it
    /// is late.
    pub(super) async fn create_for_a_look(
        &self,
        spec: &LaunchSpec,
        choice: Choice,
    ) -> Result<String, LaunchError> {
        let token = token::draw_token()?;
        let now = SystemTime::now();
        let mut body = Plan { settings: &self.settings, spec, token: &token, choice, now }.body();
        body.labels = body.labels.map(names::passing);
        self.create_as(spec, body).await
    }

    /// Of a container for a look.
    pub(super) fn look_spec(spec: &LaunchSpec) -> Result<LaunchSpec, LaunchError> {
        let name = format!("look-{}", token::draw_name()?);
        Ok(LaunchSpec {
            container: ContainerId::new(name).map_err(|_| LaunchError::Lost)?,
            isolation_min: Isolation::Namespaces,
            slots: 1,
            lifetime: LOOK_LIFETIME,
            ..spec.clone()
        })
    }

    pub(super) async fn have_image(&self, spec: &LaunchSpec) -> Result<(), LaunchError> {
        let container = self.settings.of_profile(&spec.labels.profile);
        if container.build.is_some() || !self.engine.has_image(&container.image).await? {
            self.images.have(&self.engine, container).await?;
        }
        Ok(())
    }

    pub(super) async fn create_as(
        &self,
        spec: &LaunchSpec,
        body: ContainerCreateBody,
    ) -> Result<String, LaunchError> {
        let name = engine_name(&self.settings.owner, &spec.container)?;
        let container = self.settings.of_profile(&spec.labels.profile);
        if container.build.is_some() {
            self.images.have(&self.engine, container).await?;
        }
        match self.engine.create(&name, body.clone()).await {
            Ok(id) => Ok(id),
            // Some other thing may be missing. The engine has names of its own for images.
            Err(missing) if missing.is_not_found() => {
                if self.engine.has_image(&container.image).await? {
                    return Err(missing.into());
                }
                self.images.have(&self.engine, container).await?;
                Ok(self.engine.create(&name, body).await?)
            }
            // Podman takes it for a fault of its own.
            Err(error) if error.is_conflict() || error.names("is already in use by") => {
                Err(LaunchError::Taken)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn start(
        &self,
        spec: &LaunchSpec,
        id: &str,
        choice: Choice,
    ) -> Result<Container, LaunchError> {
        let container = self.settings.of_profile(&spec.labels.profile);
        self.begin(spec, id, choice).await?;
        // One that ended at once is still there, with its last words.
        let found = self.engine.find(id).await?;
        let started = found.and_then(|found| Container::read(&self.settings, found));
        let started = started.ok_or(LaunchError::Lost)?;
        if started.state == State::Running && started.address.is_none() {
            return Err(LaunchError::NoAddress(container.network.clone()));
        }
        Ok(started)
    }

    /// With the server in it.
    pub(super) async fn begin(
        &self,
        spec: &LaunchSpec,
        id: &str,
        choice: Choice,
    ) -> Result<(), LaunchError> {
        let Choice { user, inject, .. } = choice;
        let container = self.settings.of_profile(&spec.labels.profile);
        // In memory it is there only when the container runs; and who starts as root makes it, which
        // saves the engine a mount.
        let starts_as_root = user == User::ROOT || container.becomes(user);
        let data_of = (container.data == Data::Volume && !starts_as_root).then_some(user);
        let (parcel, settings) = (self.parcel.clone(), self.settings.clone());
        let pack = move || parcel.pack(&settings.program, inject, data_of);
        let pieces = tokio::task::spawn_blocking(pack).await??;
        if !pieces.is_empty() {
            self.engine.put(id, DIR, pieces).await?;
        }
        Ok(self.engine.start(id).await?)
    }
}

impl LaunchError {
    /// `is_undone`: what was begun is gone again for sure.
    fn into_backend_error(self, doing: &str, is_undone: bool) -> BackendError {
        let doing = doing.to_owned();
        let source = match self {
            Self::Engine(error) => match error.into_backend_error(doing) {
                BackendError::Unknown { doing, source } if is_undone => {
                    return BackendError::Unavailable { doing, source };
                }
                other => return other,
            },
            other => other,
        };
        if source.may_pass() {
            BackendError::Unavailable { doing, source: source.into() }
        } else {
            BackendError::Refused { doing, source: source.into() }
        }
    }

    /// Whether the same launch may work later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Name(_) | Self::Pack(_) | Self::NoAddress(_) => false,
            Self::Image(error) => error.may_pass(),
            Self::Draw(_)
            | Self::Interrupted(_)
            | Self::Taken
            | Self::Lost
            | Self::Untried(_)
            | Self::Engine(_) => true,
        }
    }
}
