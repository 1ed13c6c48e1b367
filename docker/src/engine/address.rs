//! Where an engine is.

use super::error::Fault;
use std::path::PathBuf;

/// Of `tcp://HOST`, as other clients have it.
const PORT_PLAIN: u16 = 2375;
const PORT_TLS: u16 = 2376;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// In plain text.
    Tcp(Authority),
    /// `certificates`: the directory where they are.
    Tls {
        to: Authority,
        certificates: PathBuf,
    },
}

/// Whether `tcp://` is to be secure, and where certificates are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) is_wanted: bool,
    /// `None`: there is no usual place.
    pub(super) certificates: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// `unix://PATH`, `tcp://HOST[:PORT]`, or the same with `http://` or `https://`.
    pub(super) fn read(text: &str, tls: &Tls) -> Result<Self, Fault> {
        let wrong = || Fault::Address(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        match scheme {
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "ssh" => Err(Fault::Ssh(text.to_owned())),
            "https" => Self::secure(rest, tls).ok_or_else(wrong)?,
            "tcp" if tls.is_wanted => Self::secure(rest, tls).ok_or_else(wrong)?,
            "tcp" | "http" => Authority::read(rest, PORT_PLAIN).map(Self::Tcp).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    fn secure(text: &str, tls: &Tls) -> Option<Result<Self, Fault>> {
        let to = Authority::read(text, PORT_TLS)?;
        let certificates = tls.certificates.clone().ok_or(Fault::NoCertificates);
        Some(certificates.map(|certificates| Self::Tls { to, certificates }))
    }

    /// For the `Host` of each call, of which engines take no notice.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "engine",
            Self::Tcp(to) | Self::Tls { to, .. } => &to.host,
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
            assert_eq!(Address::read(text, &Tls::default()).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn tcp_is_secure_where_that_is_wanted_and_https_always() {
        let certificates = Some(PathBuf::from("/certs"));
        let to = Authority { host: "far".to_owned(), port: 2376 };
        let secure = Some(Address::Tls { to, certificates: "/certs".into() });
        let wanted = Tls { is_wanted: true, certificates: certificates.clone() };
        let not_wanted = Tls { is_wanted: false, certificates };
        assert_eq!(Address::read("tcp://far", &wanted).ok(), secure);
        assert_eq!(Address::read("https://far", &not_wanted).ok(), secure);
        assert_eq!(Address::read("tcp://far", &not_wanted).ok(), Some(tcp("far", 2375)));
        assert_eq!(Address::read("http://far", &wanted).ok(), Some(tcp("far", 2375)));
        let nowhere = Address::read("https://far", &Tls::default());
        assert!(matches!(nowhere, Err(Fault::NoCertificates)), "{nowhere:?}");
        assert!(matches!(Address::read("ssh://far", &wanted), Err(Fault::Ssh(_))));
    }
}
