//! The engine's API, as far as it is needed here, with errors that say what was being done.
//!
//! Invariant: whatever is read of a stream is read at the reader's pace, and what is kept of it is
//! bounded.

mod address;
mod builds;
mod clock;
mod containers;
mod copies;
mod credentials;
mod error;
mod events;
mod found;
mod images;
mod limits;
mod lists;
mod pulls;
mod stats;
mod streams;
mod talk;
mod transport;
mod wait;

pub use builds::BuildOrder;
pub use credentials::CredentialsError;
pub use error::{EngineError, Fault};
pub use events::{Event, News, NewsFeed, Selector};
pub use found::{Ended, Found, State};
pub use images::{FoundImage, Image};
pub use lists::Listed;
pub use pulls::PullTrouble;
pub use stats::Stats;
pub use streams::{Attached, LogTail, Piece};
pub use talk::Hear;
pub use wait::Until;

use address::{Address, Tls};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{SystemInfo, SystemVersion},
};
use error::Doing;
use std::{
    env,
    path::Path,
    sync::{Arc, OnceLock},
};
use tokio::sync::OnceCell;
use transport::Transport;

const HOST_VARIABLE: &str = "DOCKER_HOST";
/// Said to anything: `tcp://` is secure.
const TLS_VARIABLE: &str = "DOCKER_TLS_VERIFY";
const CERTIFICATES_VARIABLE: &str = "DOCKER_CERT_PATH";
const HOST_DEFAULT: &str = "unix:///var/run/docker.sock";

/// For any call, until its answer begins.
const CALL_S_MAX: u64 = 120;

/// One engine. Cheap to clone; connects when it is first asked, so it may be down until then.
#[derive(Debug, Clone)]
pub struct Engine {
    host: Arc<str>,
    tls: Arc<Tls>,
    /// Where credentials for registries are.
    config_dir: Option<Arc<Path>>,
    connected: Arc<OnceCell<Connected>>,
}

#[derive(Debug, Clone)]
struct Connected {
    docker: Docker,
    /// For what the library does not understand.
    transport: Arc<Transport>,
}

impl Engine {
    /// At `unix://PATH`, `tcp://HOST:PORT` or `https://HOST:PORT`. `None`: what `DOCKER_HOST` says,
    /// else the usual socket. `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` mean what they mean to the
    /// docker CLI.
    pub fn new(host: Option<&str>) -> Self {
        let said = |name| env::var_os(name).filter(|it| !it.is_empty());
        let host = host.map(str::to_owned).or_else(|| said(HOST_VARIABLE)?.into_string().ok());
        let config_dir = credentials::usual_dir();
        let certificates = said(CERTIFICATES_VARIABLE).map(Into::into);
        let tls = Tls {
            is_wanted: said(TLS_VARIABLE).is_some(),
            certificates: certificates.or_else(|| config_dir.clone()),
        };
        Self {
            host: host.as_deref().unwrap_or(HOST_DEFAULT).into(),
            tls: tls.into(),
            config_dir: config_dir.map(Into::into),
            connected: Arc::default(),
        }
    }

    /// Secure by `ca.pem`, `cert.pem` and `key.pem` in `dir`, where the engine is reached by
    /// `tcp://`. Without a `cert.pem` the engine is not told who asks.
    #[must_use]
    pub fn with_certificates(self, dir: &Path) -> Self {
        let tls = Tls { is_wanted: true, certificates: Some(dir.to_owned()) };
        Self { tls: tls.into(), ..self }
    }

    /// Credentials for registries are in `dir`, and not where the docker CLI has them.
    #[must_use]
    pub fn with_config(self, dir: &Path) -> Self {
        Self { config_dir: Some(dir.into()), ..self }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub async fn version(&self) -> Result<SystemVersion, EngineError> {
        self.docker().await?.version().await.doing("ask for the engine's version")
    }

    pub async fn info(&self) -> Result<SystemInfo, EngineError> {
        self.docker().await?.info().await.doing("ask for the engine's state")
    }

    /// Whether there is a network of this name.
    pub async fn has_network(&self, name: &str) -> Result<bool, EngineError> {
        let found = self.docker().await?.inspect_network(name, None).await;
        match found.doing(format_args!("look at network `{name}`")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Speaks the newest version of the API that both sides know.
    async fn docker(&self) -> Result<Docker, EngineError> {
        Ok(self.connected().await?.docker.clone())
    }

    async fn connected(&self) -> Result<&Connected, EngineError> {
        let connected = self.connected.get_or_try_init(|| self.connect()).await;
        connected.map_err(|fault| {
            let doing = format!("connect to the engine at `{}`", self.host);
            EngineError { doing, fault }
        })
    }

    async fn connect(&self) -> Result<Connected, Fault> {
        let address = Address::read(&self.host, &self.tls)?;
        let base = format!("http://{}", address.host());
        let version = Arc::<OnceLock<String>>::default();
        let transport = Arc::new(Transport::new(address, version.clone()));
        let shared = transport.clone();
        let docker = Docker::connect_with_custom_transport(
            move |request| shared.call(request),
            Some(base),
            CALL_S_MAX,
            API_DEFAULT_VERSION,
        )?;
        let docker = docker.negotiate_version().await?;
        // Nothing else is connected by it, so nobody has set it.
        let _ = version.set(docker.client_version().to_string());
        Ok(Connected { docker, transport })
    }
}
