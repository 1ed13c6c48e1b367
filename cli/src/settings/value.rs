//! Values of settings, as they stand in the file.

mod containers;

pub(crate) use containers::{
    BackendKind, Injection, List, PortRange, PullWhen, Reached, UserIds, WallsOf,
};

use crate::span::Seconds;
use slotmux_protocol::{Isolation, Network, Root};
use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};
use toml::de::{DeInteger, DeValue};

/// What a key of the file can hold.
pub(super) trait Setting: Sized {
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

/// `host:port`. The host is an address, or `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    host: IpAddr,
    port: u16,
}

/// Where the journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Journal {
    Off,
    File(PathBuf),
}

impl Listen {
    pub(super) const fn loopback(port: u16) -> Self {
        Self { host: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port }
    }

    pub(crate) fn is_loopback(self) -> bool {
        self.host.to_canonical().is_loopback()
    }

    pub(crate) fn address(self) -> std::net::SocketAddr {
        (self.host, self.port).into()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let localhost = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: std::net::SocketAddr =
            localhost.as_deref().unwrap_or(text).parse().map_err(|_| {
                format!("`{text}` is not an address and a port, such as 127.0.0.1:8080")
            })?;
        Ok(Self { host: address.ip(), port: address.port() })
    }
}

impl FromStr for Journal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("the journal is a file, or `off`".to_owned()),
            "off" => Ok(Self::Off),
            path => Ok(Self::File(path.into())),
        }
    }
}

pub(crate) fn parse_network(text: &str) -> Result<Network, String> {
    match text {
        "on" => Ok(Network::On),
        "off" => Ok(Network::Off),
        other => Err(format!("the network is on or off, not `{other}`")),
    }
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("a string, not {}", shown(value)))
}

impl Setting for String {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value).map(str::to_owned)
    }
}

impl Setting for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("true or false, not {}", shown(value)))
    }
}

impl Setting for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value).map(Self::from)
    }
}

impl Setting for Network {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value).and_then(parse_network)
    }
}

impl Setting for Seconds {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            other => return Err(format!("a number of seconds, not {}", shown(other))),
        };
        crate::span::parse(number)
    }
}

macro_rules! from_text {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let text = text(value)?;
                text.parse().map_err(|error| format!("{error}"))
            }
        })*
    };
}

from_text!(
    Listen,
    Journal,
    Isolation,
    Root,
    IpAddr,
    BackendKind,
    Injection,
    PullWhen,
    WallsOf,
    Reached,
    PortRange
);

/// A user's number may stand without quotes.
impl Setting for UserIds {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_integer() {
            Some(number) => number.as_str().parse(),
            None => text(value)?.parse(),
        }
    }
}

impl Setting for List {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let array = value.as_array();
        let array = array.ok_or_else(|| format!("an array of strings, not {}", shown(value)))?;
        let strings = array.iter().map(|it| text(it.get_ref()).map(str::to_owned));
        strings.collect::<Result<_, _>>().map(Self)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let whole = || format!("a whole number from 0 to {}, not {}", <$type>::MAX, shown(value));
                let number: &DeInteger<'_> = value.as_integer().ok_or_else(whole)?;
                <$type>::from_str_radix(number.as_str(), number.radix()).map_err(|_| whole())
            }
        })*
    };
}

integers!(u16, u32, u64, usize);

/// For people; long values are cut.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let text: String = text.chars().take(40).collect();
            format!("{text:?}")
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
