//! Writing a file: in place, at its end, or as a whole.

use super::{
    FileError, Told, Workspace, fault, path::Place, regular, replace::Draft, short, size_of_file,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, fchmod, ftruncate},
    io::Errno,
};
use slotmux_protocol::{Encoding, WriteFileArgs};
use std::borrow::Cow;

pub(super) const FILE_MODE: u16 = 0o644;

impl Workspace {
    /// Written in place: the file keeps its owner, mode and links. Parents are made.
    #[cfg(test)]
    pub(crate) fn write(&self, path: &str, content: &[u8]) -> Result<(), FileError> {
        self.put(path, content, OFlags::empty(), None)
    }

    fn put(
        &self,
        path: &str,
        content: &[u8],
        append: OFlags,
        mode: Option<Mode>,
    ) -> Result<(), FileError> {
        let place = self.place(path)?;
        let bytes = content.len() as u64;
        self.check_file_bytes(bytes)?;
        let _slot = self.as_slot();
        let file = match self.create(place, append) {
            Err(Errno::NOENT) => {
                self.make_parents(place).map_err(|errno| fault(path, errno))?;
                self.create(place, append)
            }
            other => other,
        };
        let file = file.map_err(|errno| fault(path, errno))?;
        let size = size_of_file(&regular(&file, path)?);
        let appends = !append.is_empty();
        if appends {
            self.check_file_bytes(size.saturating_add(bytes))?;
        }
        if let Some(mode) = mode {
            fchmod(&file, mode).map_err(|errno| fault(path, errno))?;
        }
        let written =
            if appends { write_all(&file, content) } else { overwrite(&file, size, content) };
        written.map_err(|errno| fault(path, errno))
    }

    fn create(&self, place: Place<'_>, append: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_at(place, flags | append, Mode::from_raw_mode(FILE_MODE.into()))
    }
}

/// Not truncated first: ext4 takes that for "replace by truncate" and goes to the disk at once.
fn overwrite(file: &OwnedFd, size: u64, content: &[u8]) -> rustix::io::Result<()> {
    write_all(file, content)?;
    let length = content.len() as u64;
    if size > length {
        ftruncate(file, length)?;
    }
    Ok(())
}

pub(super) fn write_all(file: &OwnedFd, content: &[u8]) -> rustix::io::Result<()> {
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn write_file(workspace: &Workspace, args: &WriteFileArgs) -> Result<Told, FileError> {
    let content: Cow<'_, [u8]> = match args.encoding {
        Encoding::Text => args.content.as_bytes().into(),
        Encoding::Base64 => BASE64_STANDARD
            .decode(&args.content)
            .map_err(|error| FileError::Invalid(format!("content is not base64: {error}")))?
            .into(),
    };
    let mode = args.mode.as_deref().map(parse_mode).transpose()?;
    match (args.append, args.atomic) {
        (true, true) => {
            let text = "append and atomic exclude each other: give one of them";
            return Err(FileError::Invalid(text.to_owned()));
        }
        (true, false) => workspace.put(&args.path, &content, OFlags::APPEND, mode)?,
        (false, false) => workspace.put(&args.path, &content, OFlags::empty(), mode)?,
        (false, true) => {
            let draft = Draft::begin(workspace, &args.path)?;
            draft.write(&content)?;
            draft.put_in_place(mode, None)?;
        }
    }
    let bytes = content.len();
    let verb = if args.append { "Appended" } else { "Wrote" };
    Ok(Told { text: format!("{verb} {bytes} bytes to {}", args.path), data: None })
}

fn parse_mode(text: &str) -> Result<Mode, FileError> {
    let digits = text.len() <= 4 && !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.map(Mode::from_raw_mode).ok_or_else(|| {
        FileError::Invalid(format!(
            "mode is an octal number from 000 to 777, without set-uid, set-gid and sticky bits; \
             not `{}`",
            short(text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_has_no_special_bits() {
        for (text, mode) in [("755", 0o755), ("0644", 0o644), ("0", 0), ("777", 0o777)] {
            assert_eq!(parse_mode(text), Ok(Mode::from_raw_mode(mode)), "{text}");
        }
        for text in ["", "8", "4755", "1777", "00755", "+755", "-1", "0o755", "rwx", " 755", "７"]
        {
            assert!(matches!(parse_mode(text), Err(FileError::Invalid(_))), "{text}");
        }
    }
}
