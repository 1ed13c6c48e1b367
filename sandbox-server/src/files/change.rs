//! Making directories, and giving things other names.

use super::{FileError, Told, Workspace, fault, path::nameless, short};
use rustix::{
    fs::{AtFlags, FileType, RenameFlags, renameat_with, statat},
    io::Errno,
};
use slotmux_protocol::{MkdirArgs, MoveArgs};

pub(super) fn mkdir(workspace: &Workspace, args: &MkdirArgs) -> Result<Told, FileError> {
    let place = workspace.place(&args.path)?;
    let _slot = workspace.as_slot();
    workspace.make_dirs(place).map_err(|errno| match errno {
        // The name of it or of one above is taken by something else.
        Errno::NOTDIR => FileError::NotADirectory(short(&args.path)),
        errno => fault(&args.path, errno),
    })?;
    Ok(Told { text: format!("Made {}", args.path), data: None })
}

pub(super) fn rename(workspace: &Workspace, args: &MoveArgs) -> Result<Told, FileError> {
    let (from, to) = (workspace.place(&args.from)?, workspace.place(&args.to)?);
    let _slot = workspace.as_slot();
    let (from_dir, from_name) = workspace.open_above(&args.from, from)?;
    let kind = statat(&from_dir, from_name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| fault(&args.from, errno))?;
    let is_dir = FileType::from_raw_mode(kind.st_mode) == FileType::Directory;
    if !is_dir && (args.from.ends_with('/') || args.to.ends_with('/')) {
        let path = if args.from.ends_with('/') { &args.from } else { &args.to };
        return Err(FileError::NotADirectory(short(path)));
    }
    let (above, to_name) = to.split().ok_or_else(|| nameless(&args.to))?;
    let to_dir = match workspace.open_dir(above) {
        Err(Errno::NOENT) => workspace.make_dirs(above),
        other => other,
    };
    let to_dir = to_dir.map_err(|errno| fault(&args.to, errno))?;
    let flags = if args.overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    renameat_with(&from_dir, from_name, &to_dir, to_name, flags).map_err(|errno| match errno {
        Errno::XDEV => FileError::Invalid(format!(
            "{} and {} are on different file systems; copy it and delete the old one",
            short(&args.from),
            short(&args.to)
        )),
        Errno::INVAL => {
            FileError::Invalid(format!("{} cannot be moved into itself", short(&args.from)))
        }
        Errno::NOTDIR => FileError::NotADirectory(short(&args.to)),
        Errno::NOENT => fault(&args.from, errno),
        errno => fault(&args.to, errno),
    })?;
    Ok(Told { text: format!("Moved {} to {}", args.from, args.to), data: None })
}
