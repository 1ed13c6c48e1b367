//! Values that are about containers and what runs them.

use slotmux_docker::{Inject, Pull, User, Walls};
use std::{ops::RangeInclusive, str::FromStr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BackendKind {
    #[default]
    Local,
    Docker,
}

/// In words of people, each for a value of the backend.
macro_rules! words {
    ($name:ident($of:ty), $what:literal { $($word:literal => $value:expr,)* }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) $of);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self($value)),)*
                    other => {
                        let words = [$($word),*].join(" or ");
                        Err(format!("{} is {words}, not `{other}`", $what))
                    }
                }
            }
        }

        impl $name {
            pub(crate) fn word(of: $of) -> &'static str {
                [$(($word, $value)),*].into_iter().find(|it| it.1 == of).map_or("", |it| it.0)
            }
        }
    };
}

words!(Injection(Inject), "the server gets in by" {
    "best" => Inject::Best,
    "copy" => Inject::Copy,
    "bind" => Inject::Bind,
});
words!(PullWhen(Pull), "when to pull" { "if-missing" => Pull::IfMissing, "never" => Pull::Never, });
words!(WallsOf(Walls), "what walls need" {
    "best" => Walls::Best,
    "ordinary" => Walls::Ordinary,
    "namespaces" => Walls::Namespaces,
});

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Reached {
    #[default]
    Address,
    Published,
}

/// `FIRST-LAST`, or one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRange(pub(crate) RangeInclusive<u16>);

/// `UID`, or `UID:GID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserIds(pub(crate) User);

/// An array of strings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct List(pub(crate) Vec<String>);

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "docker" => Ok(Self::Docker),
            other => Err(format!("the backend is local or docker, not `{other}`")),
        }
    }
}

impl FromStr for Reached {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "address" => Ok(Self::Address),
            "published" => Ok(Self::Published),
            other => Err(format!("containers are reached by address or published, not `{other}`")),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self(first..=last)),
            _ => Err(format!("`{text}` is not a range of ports, such as 20000-20999")),
        }
    }
}

impl FromStr for UserIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self(User { uid, gid })),
            _ => Err(format!("`{text}` is not a user's number, such as 1000 or 1000:100")),
        }
    }
}
