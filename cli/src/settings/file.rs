//! The settings file: TOML, with a `[[profile]]` for each kind of slot.
//!
//! Reading goes on after a fault, so that one run shows them all.

use super::{BackendOptions, ContainerOptions, PoolOptions, ProfileOptions, value::Setting};
use std::{collections::HashMap, ops::Range};
use toml::de::{DeTable, DeValue};

const PROFILES: &str = "profile";

#[derive(Debug, Default)]
pub(super) struct FileOptions {
    pub(super) pool: PoolOptions,
    pub(super) backend: BackendOptions,
    pub(super) profiles: Vec<(ProfileOptions, ContainerOptions)>,
    /// Where each key stands.
    lines: HashMap<String, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFault {
    pub(crate) place: Place,
    pub(crate) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// From 1.
    Line(usize),
    /// It is not from the file.
    Elsewhere,
}

impl FileOptions {
    pub(super) fn read(text: &str) -> (Self, Vec<FileFault>) {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut reading = Reading { text, faults: Vec::new(), lines: HashMap::new() };
        for error in errors {
            reading.fault(error.span().unwrap_or_default(), error.message().to_owned());
        }
        let mut document = document.into_inner();
        let mut options = Self::default();
        if let Some((_, profiles)) = document.remove_entry(PROFILES) {
            options.profiles = reading.profiles(profiles.span(), profiles.get_ref());
        }
        let keys = [PoolOptions::KEYS, BackendOptions::KEYS, &[PROFILES]].concat();
        let mut table = Table { reading: &mut reading, prefix: String::new(), left: document };
        options.pool = PoolOptions::take(&mut table);
        options.backend = BackendOptions::take(&mut table);
        table.finish(&keys);
        options.lines = reading.lines;
        (options, reading.faults)
    }

    /// As if they stood in a file.
    pub(super) fn of(profiles: Vec<(ProfileOptions, ContainerOptions)>) -> Self {
        Self { profiles, ..Self::default() }
    }

    /// Where `key` stands, or else what it belongs to.
    pub(super) fn place(&self, key: &str) -> Place {
        let above = key.rsplit_once('.').map(|(above, _)| above);
        let line = self.lines.get(key).or_else(|| self.lines.get(above?));
        line.map_or(Place::Elsewhere, |line| Place::Line(*line))
    }
}

struct Reading<'t> {
    text: &'t str,
    faults: Vec<FileFault>,
    lines: HashMap<String, usize>,
}

/// A table that is being read: what is left in the end is unknown.
pub(super) struct Table<'r, 't, 'd> {
    reading: &'r mut Reading<'t>,
    prefix: String,
    left: DeTable<'d>,
}

impl Reading<'_> {
    fn line(&self, at: &Range<usize>) -> usize {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    fn fault(&mut self, at: Range<usize>, what: String) {
        let place = Place::Line(self.line(&at));
        self.faults.push(FileFault { place, what });
    }

    fn profiles(
        &mut self,
        at: Range<usize>,
        value: &DeValue<'_>,
    ) -> Vec<(ProfileOptions, ContainerOptions)> {
        let Some(tables) = value.as_array() else {
            self.fault(at, "`profile`: write each as a table under [[profile]]".to_owned());
            return Vec::new();
        };
        let mut profiles = Vec::new();
        for (number, profile) in tables.iter().enumerate() {
            let Some(table) = profile.get_ref().as_table() else {
                self.fault(profile.span(), "`profile`: a table is missing here".to_owned());
                continue;
            };
            let name = format!("{PROFILES}[{number}]");
            let line = self.line(&profile.span());
            self.lines.insert(name.clone(), line);
            profiles.push(self.profile(format!("{name}."), table));
        }
        profiles
    }

    fn profile(
        &mut self,
        prefix: String,
        table: &DeTable<'_>,
    ) -> (ProfileOptions, ContainerOptions) {
        let mut table = Table { reading: self, prefix, left: table.clone() };
        let options = (ProfileOptions::take(&mut table), ContainerOptions::take(&mut table));
        table.finish(&[ProfileOptions::KEYS, ContainerOptions::KEYS].concat());
        options
    }
}

impl Table<'_, '_, '_> {
    pub(super) fn take<T: Setting>(&mut self, key: &str) -> Option<T> {
        let (spelled, value) = self.left.remove_entry(key)?;
        let line = self.reading.line(&spelled.span());
        self.reading.lines.insert(format!("{}{key}", self.prefix), line);
        match T::read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(what) => {
                self.reading.fault(value.span(), format!("`{key}`: {what}"));
                None
            }
        }
    }

    fn finish(self, known: &[&str]) {
        for key in self.left.keys() {
            let what =
                format!("unknown key `{}`; the keys are {}", key.get_ref(), known.join(", "));
            self.reading.fault(key.span(), what);
        }
    }
}
