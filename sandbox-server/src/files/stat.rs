//! What a file is.

use super::{FileError, Told, Workspace, fault, names, walk::Kind};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, readlinkat, statat};
use serde_json::{Map, json};
use slotmux_protocol::StatArgs;
use std::fmt::Write as _;

/// The kernel's nobody, who owns what is not of this user namespace.
const NOBODY: u32 = 65_534;

/// Seconds.
#[expect(clippy::cast_precision_loss, reason = "a double holds seconds to less than a microsecond")]
pub(super) fn mtime(stat: &Stat) -> f64 {
    stat.st_mtime as f64 + stat.st_mtime_nsec as f64 / 1e9
}

pub(super) fn stat(workspace: &Workspace, args: &StatArgs) -> Result<Told, FileError> {
    let place = workspace.place(&args.path)?;
    let _slot = workspace.as_slot();
    let fault = |errno| fault(&args.path, errno);
    // Of a link itself, so by its name; what has no name of its own is a directory.
    let (stat, target) = if let Some((above, name)) = place.split() {
        let dir = workspace.open_dir(above).map_err(fault)?;
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fault)?;
        let target = match Kind::of_stat(&stat) {
            Kind::Symlink => Some(readlinkat(&dir, name, Vec::new()).map_err(fault)?),
            _ => None,
        };
        (stat, target)
    } else {
        let file = workspace.open_at(place, OFlags::PATH, Mode::empty()).map_err(fault)?;
        (rustix::fs::fstat(&file).map_err(fault)?, None)
    };
    let (kind, size) = (Kind::of_stat(&stat).as_str(), super::size_of_file(&stat));
    let mode = format!("{:04o}", stat.st_mode & 0o7777);
    let uid = workspace.seen_uid(stat.st_uid);
    let mut text =
        format!("{}: {kind}, {size} bytes, mode {mode}", names::shown(args.path.as_bytes()));
    let mut data = Map::new();
    names::insert(&mut data, args.path.as_bytes());
    for (name, value) in [
        ("kind", json!(kind)),
        ("size", json!(size)),
        ("mode", json!(mode)),
        ("mtime", json!(mtime(&stat))),
        ("uid", json!(uid)),
        ("links", json!(stat.st_nlink)),
    ] {
        data.insert(name.to_owned(), value);
    }
    if let Some(target) = target {
        // Writing to a string cannot fail.
        let _ = write!(text, ", leads to {}", names::shown(target.to_bytes()));
        let mut inner = Map::new();
        names::insert(&mut inner, target.to_bytes());
        for (name, value) in inner {
            data.insert(name.replace("path", "target"), value);
        }
    }
    Ok(Told { text, data: Some(data.into()) })
}

impl Workspace {
    /// As the slot sees it.
    fn seen_uid(&self, uid: u32) -> u32 {
        let Some(inside) = self.uid_inside else { return uid };
        let own = self.identity.map_or_else(|| rustix::process::geteuid().as_raw(), |it| it.uid);
        if uid == own { inside } else { NOBODY }
    }
}
