//! Where something is mounted, as the kernel says in `/proc/self/mountinfo` (proc(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The mounts below `dir`, and not the one that it is in.
pub(super) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|it| *it == b'\n');
    Ok(lines.filter_map(place).filter(|it| it.starts_with(dir) && it != dir).collect())
}

/// The fifth field, in which blanks and their like are written as octal numbers.
fn place(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|it| *it == b' ').nth(4)?;
    let mut place = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..3).filter(|_| *first == b'\\').and_then(octal);
        if let Some(byte) = number {
            place.push(byte);
            rest = &after[3..];
        } else {
            place.push(*first);
            rest = after;
        }
    }
    Some(OsString::from_vec(place).into())
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_named() {
        let line =
            b"36 35 98:0 /mnt1 /mnt/a\\040b\\011\\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(place(line).unwrap(), Path::new("/mnt/a b\t\\c"));
        assert_eq!(place(b"36 35 98:0 / / rw - x y z").unwrap(), Path::new("/"));
        assert_eq!(place(b"36 35 98:0 / /odd\\ rw").unwrap(), Path::new("/odd\\"));
        assert_eq!(place(b""), None);
    }

    #[test]
    fn proc_is_mounted() {
        assert!(below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
    }
}
