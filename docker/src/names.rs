//! What a container is called at the engine, and the labels that say whose it is.
//!
//! Invariant: two containers of ours never get one name, and no name leaves its place in a path.

use slotmux_backend::{Labels, LaunchSpec};
use slotmux_protocol::{ContainerId, ProfileName};
use std::{
    collections::HashMap,
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) const OWNER: &str = "slotmux.owner";
const CONTAINER: &str = "slotmux.container";
const POOL: &str = "slotmux.pool";
const GENERATION: &str = "slotmux.generation";
const PROFILE: &str = "slotmux.profile";
const SLOTS: &str = "slotmux.slots";
/// In seconds since 1970. For whoever finds the container when its pool is gone.
const EXPIRES: &str = "slotmux.expires";

/// Any pool removes what has outlived its time by this, whose ever it was.
const EXPIRED_FOR: Duration = Duration::from_mins(10);

/// A host name or a path would end somewhere here too.
const NAME_BYTES_MAX: usize = 255;

#[derive(Debug, thiserror::Error)]
#[error("the name `{0}` is too long for a container")]
pub(crate) struct NameTooLong(String);

/// What the labels of a container say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) container: ContainerId,
    pub(crate) labels: Labels,
    pub(crate) slots: u16,
    pub(crate) expires: SystemTime,
}

/// Letters, digits, `-` and `_` stand for themselves; other bytes as `.hh`.
pub(crate) fn engine_name(owner: &str, container: &ContainerId) -> Result<String, NameTooLong> {
    let mut name = format!("slotmux-{owner}-");
    for byte in container.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte.into()),
            // Writing to a string never fails.
            _ => drop(write!(name, ".{byte:02x}")),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameTooLong(container.as_str().chars().take(40).collect()));
    }
    Ok(name)
}

pub(crate) fn labels(owner: &str, spec: &LaunchSpec, now: SystemTime) -> HashMap<String, String> {
    let expires = (now + spec.lifetime).duration_since(UNIX_EPOCH).unwrap_or_default();
    [
        (OWNER, owner.to_owned()),
        (CONTAINER, spec.container.to_string()),
        (POOL, spec.labels.pool.clone()),
        (GENERATION, spec.labels.generation.to_string()),
        (PROFILE, spec.labels.profile.to_string()),
        (SLOTS, spec.slots.to_string()),
        (EXPIRES, expires.as_secs().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Of a container that is of no pool, and is removed by any when it is late.
pub(crate) fn passing(labels: HashMap<String, String>) -> HashMap<String, String> {
    labels.into_iter().filter(|(name, _)| matches!(&**name, OWNER | EXPIRES)).collect()
}

/// Of whoever's container.
fn expires(labels: &HashMap<String, String>) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(labels.get(EXPIRES)?.parse().ok()?))
}

/// Whether it is time that anybody removes it. What cannot be read was not written by us.
pub(crate) fn has_outlived(labels: &HashMap<String, String>) -> bool {
    let late = expires(labels).and_then(|then| then.checked_add(EXPIRED_FOR));
    late.is_some_and(|late| late < SystemTime::now())
}

impl Marks {
    /// `None`: it is none of `owner`'s, or somebody else has written its labels.
    pub(crate) fn read(owner: &str, labels: &HashMap<String, String>) -> Option<Self> {
        let label = |name: &str| labels.get(name).map(String::as_str);
        if label(OWNER)? != owner {
            return None;
        }
        Some(Self {
            container: ContainerId::new(label(CONTAINER)?).ok()?,
            labels: Labels {
                pool: label(POOL)?.to_owned(),
                generation: label(GENERATION)?.parse().ok()?,
                profile: ProfileName::new(label(PROFILE)?).ok()?,
            },
            slots: label(SLOTS)?.parse().ok()?,
            expires: expires(labels)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmux_backend::conformance::spec;

    fn name(container: &str) -> Result<String, NameTooLong> {
        engine_name("me", &ContainerId::new(container).unwrap())
    }

    #[test]
    fn names_are_what_engines_take_and_differ_where_ids_differ() {
        for (container, wanted) in [
            ("small-0_a", "slotmux-me-small-0_a"),
            ("..", "slotmux-me-.2e.2e"),
            ("a/../b", "slotmux-me-a.2f.2e.2e.2fb"),
            (".2e", "slotmux-me-.2e2e"),
            ("ü", "slotmux-me-.c3.bc"),
        ] {
            assert_eq!(name(container).unwrap(), wanted);
        }
    }

    #[test]
    fn a_name_is_checked_at_the_limit_and_one_past_it() {
        let room = NAME_BYTES_MAX - "slotmux-me-".len();
        assert!(name(&"n".repeat(room)).is_ok());
        assert!(name(&"n".repeat(room + 1)).is_err());
    }

    #[test]
    fn labels_read_back_for_their_owner_only() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let spec = spec("one");
        let labels = labels("me", &spec, now);
        let marks = Marks::read("me", &labels).unwrap();
        assert_eq!((&marks.container, &marks.labels), (&spec.container, &spec.labels));
        assert_eq!((marks.slots, marks.expires), (spec.slots, now + spec.lifetime));
        assert_eq!(Marks::read("you", &labels), None);
    }
}
