//! The one place that names every backend.

use crate::{
    fault::Fault,
    settings::{BackendSettings, DockerChoice},
};
use slotmux_backend::Backend;
use slotmux_docker::{DockerBackend, DockerSettings, is_static};
use slotmux_local::{LocalBackend, LocalSettings};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Of this program, among others in it.
const SUBCOMMAND: &str = "sandbox-server";
const SERVER: &str = "slotmux-sandbox-server";

/// Kept from one start to the next: a pool without it does not know its containers.
const OWNER_FILE: &str = "docker-owner";

/// A backend that runs.
pub(crate) struct Running {
    local: Option<Arc<LocalBackend>>,
    any: Arc<dyn Backend>,
}

impl Running {
    /// What is in `state_dir` is all that one start knows of the last one.
    pub(crate) fn start(settings: BackendSettings, state_dir: &Path) -> Result<Self, Fault> {
        match settings {
            BackendSettings::Local => {
                let local = Arc::new(local(state_dir)?);
                Ok(Self { any: local.clone(), local: Some(local) })
            }
            BackendSettings::Docker(choice) => {
                Ok(Self { local: None, any: Arc::new(docker(*choice, state_dir)?) })
            }
        }
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        self.any.clone()
    }

    /// Whether slots see the executables of this machine.
    pub(crate) fn slots_are_here(&self) -> bool {
        self.local.is_some()
    }

    /// Returns when nothing is left of what was stopped.
    pub(crate) async fn settled(&self) {
        if let Some(local) = &self.local {
            local.settled().await;
        }
    }
}

pub(crate) fn local(state_dir: &Path) -> Result<LocalBackend, Fault> {
    Ok(LocalBackend::new(LocalSettings {
        program: own_program()?,
        args_before: vec![SUBCOMMAND.into()],
        state_dir: state_dir.to_owned(),
    }))
}

pub(crate) fn docker(choice: DockerChoice, state_dir: &Path) -> Result<DockerBackend, Fault> {
    let (program, args_before) = server(choice.sandbox_server)?;
    let owner = match choice.owner {
        Some(owner) => owner,
        None => kept_owner(state_dir, OWNER_FILE).map_err(|error| {
            let path = state_dir.join(OWNER_FILE);
            Fault::because(format!("keep the owner of containers in `{}`", path.display()), &error)
        })?,
    };
    let settings = DockerSettings { program, args_before, owner, ..choice.settings };
    DockerBackend::new(settings).map_err(|error| Fault::because("use the Docker engine", &error))
}

/// This very executable, to be started as a container.
fn own_program() -> Result<PathBuf, Fault> {
    let program = env::current_exe().and_then(|path| {
        // Replaced while it runs, as by an upgrade; the name has ` (deleted)` at its end.
        if path.exists() { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
    });
    program.map_err(|error| Fault::because("find the own executable", &error))
}

/// What is put into images, and its first arguments.
fn server(named: Option<PathBuf>) -> Result<(PathBuf, Vec<OsString>), Fault> {
    let own = own_program()?;
    if let Some(named) = named {
        let looked = fs::canonicalize(&named).map_err(|error| {
            Fault::because(format!("find the sandbox-server `{}`", named.display()), &error)
        })?;
        let own = fs::canonicalize(&own).unwrap_or(own);
        let before = if looked == own { vec![SUBCOMMAND.into()] } else { Vec::new() };
        return Ok((looked, before));
    }
    // One that cannot be read will not do either.
    let fits = |path: &Path| is_static(path).unwrap_or(false);
    let here = own.parent().unwrap_or(Path::new("/"));
    // Where it is installed, and where Cargo puts it.
    let built = format!("../{}-unknown-linux-gnu/small/{SERVER}", env::consts::ARCH);
    let beside = [here.join(SERVER), here.join(built)];
    if let Some(path) = beside.iter().find(|path| fits(path)) {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        return Ok((path, Vec::new()));
    }
    if fits(&own) {
        return Ok((own, vec![SUBCOMMAND.into()]));
    }
    Err(Fault::failed(format!("there is no static {SERVER} to put into images"))
        .hint("`cargo static` builds one; or name one with --sandbox-server"))
}

/// Drawn at the first start with this directory, so that nobody else has it.
pub(crate) fn kept_owner(state_dir: &Path, file: &str) -> io::Result<String> {
    let path = state_dir.join(file);
    match fs::read_to_string(&path) {
        Ok(owner) => return Ok(owner.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(state_dir)?;
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let owner = format!("{:016x}", u64::from_ne_bytes(bytes));
    // Whole or not at all: half an owner would be another one.
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(owner.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok(owner)
}
