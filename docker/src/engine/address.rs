//! Where an engine is.

use super::error::Fault;
use std::path::PathBuf;

/// Of `tcp://HOST`, as other clients have it.
const PORT_PLAIN: u16 = 2375;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// In plain text.
    Tcp(Authority),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// `unix://PATH`, `tcp://HOST[:PORT]`, or the same with `http://`.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        let wrong = || Fault::Address(text.to_owned());
        match text.split_once("://").ok_or_else(wrong)? {
            ("unix", path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            ("tcp" | "http", rest) => {
                Authority::read(rest, PORT_PLAIN).map(Self::Tcp).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    /// For the `Host` of each call, of which engines take no notice.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "engine",
            Self::Tcp(authority) => &authority.host,
        }
    }
}

impl Authority {
    fn read(text: &str, port: u16) -> Option<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (host, port) = match text.rsplit_once(':') {
            // An IPv6 address without a port ends in its bracket.
            Some((host, digits)) if !digits.ends_with(']') => (host, digits.parse().ok()?),
            Some(_) | None => (text, port),
        };
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        // Colons are an IPv6 address's, and that stands in brackets.
        let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
        let fits = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.chars().all(plain),
        };
        (fits && !host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp(Authority { host: host.to_owned(), port })
    }

    #[test]
    fn addresses_are_read_as_other_clients_do() {
        for (text, wanted) in [
            ("unix:///run/docker.sock", Some(Address::Unix("/run/docker.sock".into()))),
            ("tcp://far:2400", Some(tcp("far", 2400))),
            ("http://far:2400/", Some(tcp("far", 2400))),
            ("tcp://far", Some(tcp("far", 2375))),
            ("tcp://[fd00::1]:80", Some(tcp("fd00::1", 80))),
            ("tcp://[fd00::1]", Some(tcp("fd00::1", 2375))),
            ("tcp://fd00::1:80", None),
            ("tcp://far:99999", None),
            ("tcp://far/path", None),
            ("tcp://", None),
            ("unix://", None),
            ("fd://", None),
            ("/run/docker.sock", None),
        ] {
            assert_eq!(Address::read(text).ok(), wanted, "{text}");
        }
    }
}
