//! The small types of the core: time, keys, and how a lease ends.

use slotmux_protocol::SlotIndex;
use std::sync::Arc;

/// Milliseconds since 1970, as the shell's clock has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    pub(super) const END: Self = Self(u64::MAX);

    #[must_use]
    pub fn plus(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(span_ms))
    }

    /// The time from `earlier` to here; none when the clock went back.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One acquire request. Chosen by the shell, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// A profile's place in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileKey(pub u16);

/// A container. The generation tells it from an earlier one at the same place, so that late news
/// about that one is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// A slot of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    pub container: ContainerKey,
    pub slot: SlotIndex,
}

/// A slot's place among all: only good within one turn, or while a lease is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(pub(super) u32);

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEnd {
    Released,
    Expired,
    Revoked(Arc<str>),
}

/// Why a container is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneKind {
    /// We asked for it.
    Stopped,
    Lost,
}

/// Whether the same launch may work later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Later,
    Never,
}

/// What becomes of the containers when the pool closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// They run on, with their leases, for the next pool process to adopt.
    Keep,
    /// Each is stopped when its last lease ends.
    Drain,
    /// All are stopped now, and their leases revoked.
    Stop,
}
