//! Ids are types: a lease is never passed where a trajectory was meant.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Longest id that a client may choose, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id must not be empty")]
    Empty,
    #[error("an id has at most {ID_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("an id must not contain control characters")]
    ControlCharacter,
    #[error("a lease id reads `lease-` and a hexadecimal number")]
    NotALease,
}

/// A name somebody else chose: checked once, cheap to clone.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                checked(text.as_ref()).map(|text| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(text).map_err(de::Error::custom)
            }
        }
    };
}

name! {
    /// The rollout on whose behalf a slot is held. Chosen by the client.
    TrajectoryId
}
name! {
    /// One call, as its client names it. The same id again means the same call, never another run.
    ExecutionId
}
name! {
    /// A job of an agent, as its client names it. The same name again means the same job.
    JobName
}
name! {
    /// A container, by the name that its pool gave it before it was launched.
    ContainerId
}
name! {
    /// A kind of slot: image, resources, limits, isolation.
    ProfileName
}

fn checked(text: &str) -> Result<&str, IdError> {
    match text {
        "" => Err(IdError::Empty),
        long if long.len() > ID_BYTES_MAX => Err(IdError::TooLong(long.len())),
        odd if odd.chars().any(char::is_control) => Err(IdError::ControlCharacter),
        fine => Ok(fine),
    }
}

/// The fencing token of a lease: rises with every lease of a pool, so also with every lease of a
/// slot. A sandbox-server refuses calls that carry any epoch but the one its slot is open for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease. Its number is its epoch: there is no lease without its fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "lease-6a1b2c"))]
pub struct LeaseId(pub Epoch);

impl LeaseId {
    pub fn epoch(self) -> Epoch {
        self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease-{:x}", self.0.0)
    }
}

impl FromStr for LeaseId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix("lease-").ok_or(IdError::NotALease)?;
        let number = u64::from_str_radix(digits, 16).map_err(|_| IdError::NotALease)?;
        let lease = Self(Epoch(number));
        // One spelling only: no sign, no capitals, no leading zeros.
        if lease.to_string() == text { Ok(lease) } else { Err(IdError::NotALease) }
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LeaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A slot's place in its container, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct SlotIndex(pub u16);

impl fmt::Display for SlotIndex {
    /// The name that the atropos wire uses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot_{}", self.0)
    }
}

impl SlotIndex {
    /// Reads `slot_N`.
    pub fn parse(name: &str) -> Option<Self> {
        let index = Self(name.strip_prefix("slot_")?.parse().ok()?);
        (index.to_string() == name).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_id_has_one_spelling() {
        let lease = LeaseId(Epoch(0x6a1b));
        assert_eq!(lease.to_string(), "lease-6a1b");
        assert_eq!("lease-6a1b".parse(), Ok(lease));
        for wrong in ["lease-6A1B", "lease-06a1b", "lease-+6a1b", "lease-", "6a1b", "lease-6a1b "] {
            assert_eq!(wrong.parse::<LeaseId>(), Err(IdError::NotALease), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_checked_at_the_limit_and_one_past_it() {
        assert!(TrajectoryId::new("x".repeat(ID_BYTES_MAX)).is_ok());
        assert_eq!(TrajectoryId::new("x".repeat(257)), Err(IdError::TooLong(257)));
        assert_eq!(TrajectoryId::new(""), Err(IdError::Empty));
        assert_eq!(TrajectoryId::new("a\0b"), Err(IdError::ControlCharacter));
        assert!(serde_json::from_str::<TrajectoryId>("\"\"").is_err());
    }

    #[test]
    fn a_slot_name_reads_back() {
        assert_eq!(SlotIndex::parse("slot_7"), Some(SlotIndex(7)));
        for wrong in ["slot_", "slot_07", "slot_-1", "slot_65536", "7", ""] {
            assert_eq!(SlotIndex::parse(wrong), None, "{wrong}");
        }
    }
}
