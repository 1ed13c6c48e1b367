//! Credentials for registries, from where the docker CLI keeps them.
//!
//! As <https://docs.docker.com/reference/cli/docker/login/#credential-stores> has it: a helper for
//! this registry, else the store for all, else what stands in the file itself.

mod helper;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use std::{
    collections::HashMap,
    env, fmt, io,
    path::{Path, PathBuf},
};
use tokio::{fs::File, io::AsyncReadExt};

pub(super) use helper::HelperError;

const DIR_VARIABLE: &str = "DOCKER_CONFIG";
const HOME_VARIABLE: &str = "HOME";
const FILE: &str = "config.json";
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Docker's own registry: what images name, and what its credentials are filed under.
const HUB: &str = "docker.io";
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What stands for a name where there is a token.
const TOKEN_USER: &str = "<token>";

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` has more than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("understand `{path}`")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("what `{path}` says of `{registry}` is no name and password")]
    Auth { path: PathBuf, registry: String },
    #[error("ask `{program}` for `{registry}`")]
    Helper { program: String, registry: String, source: HelperError },
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    secret: String,
    registry: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Other fields are other programs' affair.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

impl Credentials {
    fn new(registry: &str, user: String, secret: String) -> Self {
        Self { user, secret, registry: registry.to_owned() }
    }

    pub(super) fn for_engine(self) -> DockerCredentials {
        let serveraddress = Some(self.registry);
        if self.user == TOKEN_USER {
            let identitytoken = Some(self.secret);
            return DockerCredentials { identitytoken, serveraddress, ..Default::default() };
        }
        DockerCredentials {
            username: Some(self.user),
            password: Some(self.secret),
            serveraddress,
            ..Default::default()
        }
    }
}

/// `DOCKER_CONFIG`, else `.docker` at home. `None`: there is no home.
pub(super) fn usual_dir() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    variable(DIR_VARIABLE).or_else(|| variable(HOME_VARIABLE).map(|home| home.join(".docker")))
}

/// The registry that an image's name leads to.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => {
            if host == "index.docker.io" { HUB } else { host }
        }
        Some(_) | None => HUB,
    }
}

/// `None`: there are none, and the pull goes without.
pub(super) async fn find(
    dir: &Path,
    registry: &str,
) -> Result<Option<Credentials>, CredentialsError> {
    let path = dir.join(FILE);
    let Some(text) = read(&path).await? else { return Ok(None) };
    let config: Config = serde_json::from_slice(&text)
        .map_err(|source| CredentialsError::Parse { path: path.clone(), source })?;
    let key = if registry == HUB { HUB_KEY } else { registry };
    let own = [key, registry].into_iter().find_map(|key| config.cred_helpers.get(key));
    if let Some(name) = own.or(config.creds_store.as_ref()).filter(|name| !name.is_empty()) {
        let program = format!("docker-credential-{name}");
        let asked = helper::ask(&program, key).await;
        let found = asked.map_err(|source| {
            let registry = registry.to_owned();
            CredentialsError::Helper { program, registry, source }
        })?;
        return Ok(found.map(|(user, secret)| Credentials::new(key, user, secret)));
    }
    let exact = config.auths.get(key);
    let auth = exact
        .or_else(|| config.auths.iter().find(|(at, _)| host(at) == host(key)).map(|(_, it)| it));
    auth.map_or(Ok(None), |auth| {
        let wrong = || CredentialsError::Auth { path, registry: registry.to_owned() };
        in_file(auth, key).map_err(|()| wrong())
    })
}

async fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let wrong = |source| CredentialsError::Read { path: path.to_owned(), source };
    let file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).await.map_err(wrong)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CredentialsError::TooLarge { path: path.to_owned() });
    }
    Ok(Some(text))
}

/// Empty entries are left by a logout.
fn in_file(auth: &Auth, key: &str) -> Result<Option<Credentials>, ()> {
    if !auth.identitytoken.is_empty() {
        let (user, token) = (TOKEN_USER.to_owned(), auth.identitytoken.clone());
        return Ok(Some(Credentials::new(key, user, token)));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let bytes = STANDARD.decode(auth.auth.trim()).map_err(drop)?;
    let text = String::from_utf8(bytes).map_err(drop)?;
    let (user, password) = text.split_once(':').ok_or(())?;
    // Some older clients have put zeros behind it.
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Some(Credentials::new(key, user.to_owned(), password)))
}

/// Of `https://host/v1/`, as older clients have filed it.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests;
