//! What was being done, and what the engine said to it.

use super::{credentials::CredentialsError, pulls::PullTrouble};
use bollard::errors::Error;
use slotmux_backend::{BackendError, Cause};
use std::fmt::Display;

/// Of what an engine says.
const MESSAGE_CHARS_MAX: usize = 1_000;

#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct EngineError {
    pub doing: String,
    #[source]
    pub fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing was asked.
    #[error("the engine cannot be reached")]
    Down(#[source] Cause),
    #[error("`{0}` is no address of an engine: it begins with unix://, tcp:// or https://")]
    Address(String),
    #[error(
        "`{0}`: engines are not reached by ssh. Have ssh forward the socket (`ssh -nNT -L \
         /tmp/engine.sock:/var/run/docker.sock HOST`), and say unix:///tmp/engine.sock"
    )]
    Ssh(String),
    #[error("there are no certificates for a secure connection: DOCKER_CERT_PATH says where")]
    NoCertificates,
    #[error("the engine said: {message}")]
    Said { status: u16, message: String },
    /// Nothing was asked.
    #[error("no credentials for the registry")]
    Credentials(#[source] CredentialsError),
    /// A step of a build. `words`: the last that it printed.
    #[error("step `{step}` failed: {message}{}", last_said(.words))]
    Step { step: String, message: String, words: String },
    /// It may have been done.
    #[error("the engine did not answer in time")]
    Silent,
    /// It may have been done.
    #[error("the connection to the engine broke")]
    Broken(#[source] Cause),
}

impl EngineError {
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Whether the engine spoke of this.
    pub(crate) fn names(&self, what: &str) -> bool {
        matches!(&self.fault, Fault::Said { message, .. } if message.contains(what))
    }

    /// Whether a registry has refused, or has no such thing: the same pull will be refused again.
    pub(crate) fn is_denial(&self) -> bool {
        match self.pull_trouble() {
            PullTrouble::Denied | PullTrouble::Unknown | PullTrouble::NoPlatform => true,
            PullTrouble::Unreachable => false,
            PullTrouble::Other => self.is_refusal() || self.names("invalid reference"),
        }
    }

    /// Whether the same call will be refused again.
    pub(crate) fn is_refusal(&self) -> bool {
        let is_ours = matches!(
            self.fault,
            Fault::Step { .. } | Fault::Address(_) | Fault::Ssh(_) | Fault::NoCertificates
        );
        is_ours || matches!(self.status(), Some(400..500))
    }

    fn status(&self) -> Option<u16> {
        match self.fault {
            Fault::Said { status, .. } => Some(status),
            Fault::Down(_)
            | Fault::Address(_)
            | Fault::Ssh(_)
            | Fault::NoCertificates
            | Fault::Credentials(_)
            | Fault::Step { .. }
            | Fault::Silent
            | Fault::Broken(_) => None,
        }
    }

    pub(crate) fn into_backend_error(self, doing: impl Into<String>) -> BackendError {
        let doing = doing.into();
        match &self.fault {
            Fault::Said { status: 400..500, .. }
            | Fault::Address(_)
            | Fault::Ssh(_)
            | Fault::NoCertificates
            | Fault::Step { .. } => BackendError::Refused { doing, source: self.into() },
            Fault::Said { .. } | Fault::Down(_) | Fault::Credentials(_) => {
                BackendError::Unavailable { doing, source: self.into() }
            }
            Fault::Silent | Fault::Broken(_) => {
                BackendError::Unknown { doing, source: self.into() }
            }
        }
    }
}

impl Fault {
    pub(super) fn step(step: String, message: &str, words: &str) -> Self {
        Self::Step { step: short(&step), message: short(message), words: words.to_owned() }
    }
}

fn last_said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!("; it last said: {words}") }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Said { status: status_code, message: short(&message) }
            }
            Error::DockerStreamError { error } => {
                Self::Said { status: 500, message: short(&error) }
            }
            Error::RequestTimeoutError => Self::Silent,
            Error::SocketNotFoundError(path) => Self::Down(format!("no socket `{path}`").into()),
            Error::UnsupportedURISchemeError { uri } => Self::Address(uri),
            Error::HyperLegacyError { err } if err.is_connect() => Self::Down(err.into()),
            Error::HyperLegacyError { err } => Self::Broken(err.into()),
            other => Self::Broken(other.into()),
        }
    }
}

fn short(message: &str) -> String {
    message.trim().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Names what was being done when it failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl Display) -> Result<T, EngineError>;
}

impl<T> Doing<T> for Result<T, Error> {
    fn doing(self, what: impl Display) -> Result<T, EngineError> {
        self.map_err(|error| EngineError { doing: what.to_string(), fault: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status_code: u16, message: &str) -> BackendError {
        let answer = Error::DockerResponseServerError { status_code, message: message.to_owned() };
        let error = Err::<(), _>(answer).doing("start it").unwrap_err();
        error.into_backend_error("launch container `one`")
    }

    #[test]
    fn what_the_same_call_would_meet_again_is_told_from_what_may_pass() {
        assert!(matches!(said(404, ""), BackendError::Refused { .. }));
        assert!(matches!(said(500, ""), BackendError::Unavailable { .. }));
        let silent = Err::<(), _>(Error::RequestTimeoutError).doing("start it").unwrap_err();
        let silent = silent.into_backend_error("launch");
        assert!(matches!(silent, BackendError::Unknown { .. }), "{silent:?}");
    }

    #[test]
    fn what_the_engine_said_is_bounded() {
        let BackendError::Refused { source, .. } = said(400, &"x".repeat(5_000)) else { panic!() };
        let said = source.source().unwrap().to_string();
        assert_eq!(said.len(), "the engine said: ".len() + MESSAGE_CHARS_MAX);
    }
}
