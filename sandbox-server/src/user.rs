//! Giving up root, for good, before anything else is done.
//!
//! For containers that start as root although nothing in them is to be root: the data directory
//! can be made wherever it is to be, and nobody has to prepare it.

use rustix::{
    fs::{Gid, Uid},
    process::geteuid,
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::Path,
    str::FromStr,
};

/// `UID`, or `UID:GID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// One more means no change.
const LAST: u32 = u32::MAX - 1;

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid @ 1..=LAST), Ok(gid @ 1..=LAST)) => Ok(Self { uid, gid }),
            _ => Err(format!("`{text}` is not the number of a user that is not root")),
        }
    }
}

/// Called while there is one thread: the kernel changes the user of that alone.
pub(crate) fn become_user(user: User, data_dir: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root can do that"));
    }
    // Users of slots pass through it to their files, and cannot look around.
    DirBuilder::new().recursive(true).mode(0o711).create(data_dir)?;
    chown(data_dir, Some(user.uid), Some(user.gid))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    // With the last of the three users all capabilities go too.
    set_thread_res_uid(uid, uid, uid)?;
    set_no_new_privs(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_and_never_root() {
        assert_eq!("7".parse(), Ok(User { uid: 7, gid: 7 }));
        assert_eq!("7:8".parse(), Ok(User { uid: 7, gid: 8 }));
        for wrong in ["", "0", "0:1", "1:0", "4294967295", "-1", "nobody", "1:2:3"] {
            assert!(wrong.parse::<User>().is_err(), "{wrong}");
        }
    }
}
