//! `results.jsonl`: a line a trajectory, written as each ends.

use super::outcome::Outcome;
use crate::fault::{Fault, USAGE};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

pub(crate) struct Results {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Results {
    pub(crate) fn create(path: &Path) -> Result<Self, Fault> {
        let file = File::create(path).map_err(|error| {
            Fault::because(format!("create `{}`", path.display()), &error).exit(USAGE)
        })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    pub(crate) fn write(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        let written = serde_json::to_writer(&mut self.file, outcome)
            .map_err(Into::into)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| self.fault(&error))
    }

    /// What was written before is in the file from now on.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        self.file.flush().map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &std::io::Error) -> Fault {
        Fault::because(format!("write `{}`", self.path.display()), error)
    }
}
