//! What is put into a container before it starts: the server, and the place for its data.
//!
//! An archive by the engine's API, so that it works for any image, also one without a file, and
//! for an engine elsewhere.

mod elf;

pub(crate) use elf::look as look_at;

use crate::{
    plan::{DATA_NAME, SERVER_NAME},
    settings::{Inject, User},
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use tar::{EntryType, Header};

/// Whether `program` runs in any image: it needs no library, and no loader.
pub fn is_static(program: &Path) -> io::Result<bool> {
    Ok(look_at(program)?.is_some_and(|elf| elf.is_static))
}

/// A debug build has a tenth of it.
const PROGRAM_BYTES_MAX: u64 = 1 << 30;

/// An archive ends with two empty blocks.
const END: &[u8] = &[0; 1_024];

#[derive(Debug, thiserror::Error)]
pub(crate) enum ParcelError {
    #[error("read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` has more than {PROGRAM_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
}

/// The server as an archive's entry, read once for all containers.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    packed: Mutex<Option<(Stamp, Bytes)>>,
}

/// Another file has another one.
type Stamp = (u64, SystemTime);

impl Parcel {
    /// The pieces of one archive. Blocking.
    pub(crate) fn pack(
        &self,
        program: &Path,
        inject: Inject,
        data_of: Option<User>,
    ) -> Result<Vec<Bytes>, ParcelError> {
        let mut pieces = Vec::new();
        if let Some(user) = data_of {
            pieces.push(directory(DATA_NAME, user));
        }
        if inject == Inject::Copy {
            pieces.push(self.server(program)?);
        }
        if !pieces.is_empty() {
            pieces.push(Bytes::from_static(END));
        }
        Ok(pieces)
    }

    fn server(&self, program: &Path) -> Result<Bytes, ParcelError> {
        let read = |source| ParcelError::Read { path: program.to_owned(), source };
        let meta = fs::metadata(program).map_err(read)?;
        let stamp = (meta.len(), meta.modified().map_err(read)?);
        // Held while it is read: whoever comes meanwhile needs the same bytes.
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = packed.as_ref().filter(|(of, _)| *of == stamp) {
            return Ok(bytes.clone());
        }
        if meta.len() > PROGRAM_BYTES_MAX {
            return Err(ParcelError::TooLarge { path: program.to_owned() });
        }
        let bytes = entry(program, meta.len()).map_err(read)?;
        *packed = Some((stamp, bytes.clone()));
        Ok(bytes)
    }
}

fn entry(program: &Path, length: u64) -> io::Result<Bytes> {
    let mut header = header(SERVER_NAME, EntryType::Regular, 0o755, User::ROOT)?;
    header.set_size(length);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    let before = archive.len();
    io::Read::read_to_end(&mut io::Read::take(File::open(program)?, length), &mut archive)?;
    if (archive.len() - before) as u64 != length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it changed while it was read"));
    }
    archive.resize(archive.len().next_multiple_of(512), 0);
    Ok(archive.into())
}

/// Users of slots pass through it to their files, and cannot look around.
fn directory(name: &str, user: User) -> Bytes {
    match header(name, EntryType::Directory, 0o711, user) {
        Ok(mut header) => {
            header.set_cksum();
            Bytes::copy_from_slice(header.as_bytes())
        }
        // A constant name that fits; without the entry the server makes the directory itself.
        Err(_) => Bytes::new(),
    }
}

fn header(name: &str, kind: EntryType, mode: u32, user: User) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(user.uid.into());
    header.set_gid(user.gid.into());
    header.set_mtime(0);
    header.set_size(0);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unpacked(pieces: &[Bytes]) -> Vec<(String, u32, u64, String)> {
        let bytes = pieces.concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            let name = entry.path().unwrap().display().to_string();
            (name, header.mode().unwrap(), header.uid().unwrap(), text)
        });
        entries.collect()
    }

    #[test]
    fn an_archive_has_the_server_for_all_and_the_data_for_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "x".repeat(513)).unwrap();
        let parcel = Parcel::default();
        let user = User { uid: 20_007, gid: 20_007 };
        let pieces = parcel.pack(&program, Inject::Copy, Some(user)).unwrap();
        let expected = [
            (DATA_NAME.to_owned(), 0o711, 20_007, String::new()),
            (SERVER_NAME.to_owned(), 0o755, 0, "x".repeat(513)),
        ];
        assert_eq!(unpacked(&pieces), expected);
        assert!(parcel.pack(&program, Inject::Bind, None).unwrap().is_empty());

        fs::write(&program, "another").unwrap();
        let pieces = parcel.pack(&program, Inject::Copy, None).unwrap();
        assert_eq!(unpacked(&pieces)[0].3, "another", "an upgrade is not missed");
    }
}
