//! What a pool runs with, checked as a whole before anything starts.

use crate::{core, journal::JournalMode};
use slotmux_protocol::{Isolation, Network, ProfileName, Root, SlotLimits};
use std::{collections::HashSet, fmt, time::Duration};

/// Longest pool name, so that container names stay within the limit of an id.
pub const NAME_BYTES_MAX: usize = 64;
pub const SLOTS_PER_CONTAINER_MAX: u16 = 4_096;
/// Of all profiles together, if every container were there.
pub const SLOTS_MAX: u64 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Stable: a pool finds its containers again by it.
    pub name: String,
    /// The first is the default one.
    pub profiles: Vec<ProfileConfig>,
    pub journal: JournalMode,
    /// Acquire requests that may wait at the same time.
    pub waiting_max: usize,
    /// Other requests to the pool's state at the same time; more wait for their turn.
    pub requests_max: usize,
    /// How long an acquire waits that does not say so.
    pub wait_default: Duration,
    pub heartbeat: Duration,
    /// A container whose link is down for longer counts as lost.
    pub dead_after: Duration,
    /// A slot whose reset takes longer is quarantined.
    pub reset_timeout: Duration,
    /// What a container gets to end by itself.
    pub stop_grace: Duration,
    /// Events that a slow reader may be behind before it loses some.
    pub events_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileConfig {
    pub name: ProfileName,
    pub slots_per_container: u16,
    pub containers_min: u32,
    pub containers_max: u32,
    /// Free slots to have ready beyond the demand.
    pub headroom_slots: u32,
    pub lease_ttl: Duration,
    pub isolation_min: Isolation,
    pub root: Root,
    pub network: Network,
    pub slot_limits: SlotLimits,
    pub container_lifetime: Duration,
    pub orphaned_after: Duration,
    /// How long more containers than needed are kept.
    pub cooldown: Duration,
    pub start_timeout: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl PoolConfig {
    pub fn new(name: impl Into<String>, profiles: Vec<ProfileConfig>) -> Self {
        Self {
            name: name.into(),
            profiles,
            journal: JournalMode::Off,
            waiting_max: 100_000,
            requests_max: 4_096,
            wait_default: Duration::from_secs(30),
            heartbeat: Duration::from_millis(500),
            dead_after: Duration::from_secs(5),
            reset_timeout: Duration::from_mins(1),
            stop_grace: Duration::from_secs(2),
            events_max: 16_384,
        }
    }

    /// Every fault, not only the first.
    pub fn check(&self) -> Result<(), ConfigFaults> {
        let mut faults = Faults::default();
        let name_is_fine = !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && self.name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
        faults.unless(name_is_fine, "name", || {
            format!("is 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`")
        });
        faults.unless(!self.profiles.is_empty(), "profiles", || "needs at least one".into());
        faults.unless(self.profiles.len() <= 1_000, "profiles", || "has at most 1000".into());
        for (field, number) in [
            ("waiting_max", self.waiting_max),
            ("requests_max", self.requests_max),
            ("events_max", self.events_max),
        ] {
            let is_fine = (1..=1 << 24).contains(&number);
            faults.unless(is_fine, field, || "is between 1 and 16777216".into());
        }
        for (field, span) in [
            ("wait_default", self.wait_default),
            ("heartbeat", self.heartbeat),
            ("dead_after", self.dead_after),
            ("reset_timeout", self.reset_timeout),
        ] {
            faults.span(field, span);
        }
        let mut names = HashSet::new();
        let mut slots: u64 = 0;
        for (number, profile) in self.profiles.iter().enumerate() {
            let field = |name: &str| format!("profiles[{number}].{name}");
            let is_new = names.insert(&profile.name);
            faults.unless(is_new, field("name"), || format!("`{}` is taken", profile.name));
            profile.check(&mut faults, &field);
            slots += u64::from(profile.slots_per_container) * u64::from(profile.containers_max);
        }
        faults.unless(slots <= SLOTS_MAX, "profiles", || {
            format!("have at most {SLOTS_MAX} slots together, not {slots}")
        });
        if faults.0.is_empty() { Ok(()) } else { Err(ConfigFaults(faults.0)) }
    }

    pub(crate) fn core(&self, generation: u64) -> core::Settings {
        core::Settings {
            name_stem: format!("{}-{generation:x}", self.name),
            profiles: self.profiles.iter().map(ProfileConfig::core).collect(),
            dead_after_ms: millis(self.dead_after),
            reset_timeout_ms: millis(self.reset_timeout),
            ended_max: crate::routes::TOMBSTONES_MAX,
        }
    }
}

impl ProfileConfig {
    pub fn new(name: ProfileName, slots_per_container: u16, containers_max: u32) -> Self {
        Self {
            name,
            slots_per_container,
            containers_min: 0,
            containers_max,
            headroom_slots: 0,
            lease_ttl: Duration::from_mins(5),
            isolation_min: Isolation::Landlock,
            root: Root::Minimal,
            network: Network::Off,
            slot_limits: SlotLimits::default(),
            container_lifetime: Duration::from_hours(24),
            orphaned_after: Duration::from_mins(10),
            cooldown: Duration::from_mins(1),
            start_timeout: Duration::from_mins(1),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
        }
    }

    fn check(&self, faults: &mut Faults, field: &impl Fn(&str) -> String) {
        let slots_fine = (1..=SLOTS_PER_CONTAINER_MAX).contains(&self.slots_per_container);
        faults.unless(slots_fine, field("slots_per_container"), || {
            format!("is between 1 and {SLOTS_PER_CONTAINER_MAX}")
        });
        let max_fine = (1..=100_000).contains(&self.containers_max);
        faults.unless(max_fine, field("containers_max"), || "is between 1 and 100000".into());
        let min_fine = self.containers_min <= self.containers_max;
        faults.unless(min_fine, field("containers_min"), || {
            format!("is at most `containers_max` ({})", self.containers_max)
        });
        for (name, span) in [
            ("lease_ttl", self.lease_ttl),
            ("container_lifetime", self.container_lifetime),
            ("orphaned_after", self.orphaned_after),
            ("start_timeout", self.start_timeout),
            ("backoff_min", self.backoff_min),
            ("backoff_max", self.backoff_max),
        ] {
            faults.span(field(name), span);
        }
        let backoff_fine = self.backoff_min <= self.backoff_max;
        faults.unless(backoff_fine, field("backoff_min"), || "is at most `backoff_max`".into());
    }

    fn core(&self) -> core::ProfileSettings {
        let lifetime_ms = millis(self.container_lifetime);
        core::ProfileSettings {
            name: self.name.clone(),
            slots_per_container: self.slots_per_container,
            containers_min: self.containers_min,
            containers_max: self.containers_max,
            headroom_slots: self.headroom_slots,
            cooldown_ms: millis(self.cooldown),
            start_timeout_ms: millis(self.start_timeout),
            // The rest is for the leases that it still has.
            retire_after_ms: lifetime_ms - lifetime_ms / 4,
            backoff_min_ms: millis(self.backoff_min),
            backoff_max_ms: millis(self.backoff_max),
        }
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What is wrong with a configuration: each fault with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    pub field: String,
    pub message: String,
}

impl std::error::Error for ConfigFaults {}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            let between = if number == 0 { "" } else { "; " };
            write!(f, "{between}`{}` {}", fault.field, fault.message)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Faults(Vec<ConfigFault>);

impl Faults {
    fn unless(
        &mut self,
        is_fine: bool,
        field: impl Into<String>,
        message: impl FnOnce() -> String,
    ) {
        if !is_fine {
            self.0.push(ConfigFault { field: field.into(), message: message() });
        }
    }

    fn span(&mut self, field: impl Into<String>, span: Duration) {
        let is_fine = (Duration::from_millis(1)..=Duration::from_hours(30 * 24)).contains(&span);
        self.unless(is_fine, field, || "is between 1 ms and 30 days".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PoolConfig {
        let profile = ProfileConfig::new(ProfileName::new("default").unwrap(), 8, 2);
        PoolConfig::new("main", vec![profile])
    }

    #[test]
    fn every_fault_is_listed_with_its_place() {
        assert_eq!(config().check(), Ok(()));
        let mut wrong = config();
        wrong.name = "no spaces".into();
        wrong.waiting_max = 0;
        wrong.profiles.push(wrong.profiles[0].clone());
        wrong.profiles[1].slots_per_container = 0;
        wrong.profiles[1].containers_min = 3;
        wrong.profiles[1].lease_ttl = Duration::ZERO;
        let ConfigFaults(faults) = wrong.check().unwrap_err();
        let places: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            places,
            [
                "name",
                "waiting_max",
                "profiles[1].name",
                "profiles[1].slots_per_container",
                "profiles[1].containers_min",
                "profiles[1].lease_ttl",
            ]
        );
    }

    #[test]
    fn slots_are_counted_at_the_limit_and_one_past_it() {
        let mut config = config();
        (config.profiles[0].slots_per_container, config.profiles[0].containers_max) = (100, 10_000);
        assert_eq!(config.check(), Ok(()));
        config.profiles[0].containers_max += 1;
        assert_eq!(config.check().unwrap_err().0[0].field, "profiles");
    }
}
