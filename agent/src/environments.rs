//! The grading images that an engine has, by type and name.

use std::collections::BTreeMap;

/// Of a type of environment (`docker`, `docker-ssh`, …), each environment by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environments(pub BTreeMap<String, BTreeMap<String, Environment>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The image's id.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// That the image wants to have published.
    pub ports: Vec<u16>,
    /// Whether people are offered it.
    pub advertised: bool,
    /// As people call it.
    pub title: String,
    /// The engine's runtime that its containers run in.
    pub runtime: String,
    pub run_as_root: bool,
}

impl Environments {
    pub fn get(&self, kind: &str, name: &str) -> Option<&Environment> {
        self.0.get(kind)?.get(name)
    }
}
