//! Where a peer is, in ZeroMQ's words: `tcp://host:port`, `ipc://path`.

use std::{fmt, path::PathBuf, str::FromStr};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A name or an address, and a port. Names may lead to addresses of both families.
    Tcp { host: String, port: u16 },
    /// A Unix socket by its path.
    Ipc(PathBuf),
    /// A Unix socket of Linux's abstract namespace: `ipc://@name`.
    Abstract(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address reads tcp://HOST:PORT or ipc://PATH, not `{0}`")]
    Scheme(String),
    #[error("the host of `{0}` is not one to connect to")]
    Host(String),
    #[error("the port of `{0}` is not a number from 1 to 65535")]
    Port(String),
    #[error("the path of `{0}` is empty or longer than a socket's may be")]
    Path(String),
}

/// Of `sockaddr_un`, with the byte that ends it (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            return tcp(text, rest);
        }
        let Some(path) = text.strip_prefix("ipc://") else {
            return Err(AddressError::Scheme(text.to_owned()));
        };
        if path.is_empty() || path == "@" || path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(AddressError::Path(text.to_owned()));
        }
        Ok(match path.strip_prefix('@') {
            Some(name) => Self::Abstract(name.to_owned()),
            None => Self::Ipc(path.into()),
        })
    }
}

fn tcp(whole: &str, rest: &str) -> Result<Address, AddressError> {
    let port_fault = || AddressError::Port(whole.to_owned());
    let (host, port) = rest.rsplit_once(':').ok_or_else(port_fault)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(port_fault)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let bare = bracketed.unwrap_or(host);
    // `a;b` would name an interface to come from, and `*` is for those that bind.
    let odd = bare.is_empty() || bare.contains(['*', ';', '[', ']', '/', ' ', '@']);
    if odd || (bracketed.is_none() && bare.contains(':')) {
        return Err(AddressError::Host(whole.to_owned()));
    }
    Ok(Address::Tcp { host: bare.to_owned(), port })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
            Self::Abstract(name) => write!(f, "ipc://@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in [
            "tcp://backend:2001",
            "tcp://127.0.0.1:1",
            "tcp://[::1]:65535",
            "ipc:///run/backend.sock",
            "ipc://relative.sock",
            "ipc://@abstract",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused() {
        let long = format!("ipc://{}", "x".repeat(108));
        for text in [
            "",
            "backend:2001",
            "udp://backend:2001",
            "tcp://backend",
            "tcp://backend:0",
            "tcp://backend:65536",
            "tcp://:2001",
            "tcp://*:2001",
            "tcp://::1:2001",
            "tcp://eth0;backend:2001",
            "ipc://",
            "ipc://@",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
