//! Memory that is needed at the start, and seldom afterwards.
#![expect(unsafe_code, reason = "no library of ours wraps the call")]

use std::{fs, io, os::unix::ffi::OsStrExt as _};

/// Lets go of our own code: a server at rest needs little of what it ran to put up walls and to
/// look around. What is run again comes back from the file by itself.
pub(crate) fn let_go_of_code() -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    let maps = fs::read("/proc/self/maps")?;
    for line in maps.split(|it| *it == b'\n').filter(|it| it.ends_with(own.as_os_str().as_bytes()))
    {
        let Some((from, to)) = code_of(&String::from_utf8_lossy(line)) else { continue };
        // SAFETY: a mapping of this process that nobody unmaps and nobody can write to: what is
        // dropped of it is read again from the same file.
        if unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Where it lies, if it is code. Not what may have been written to, as all that is relocated.
fn code_of(line: &str) -> Option<(usize, usize)> {
    let mut parts = line.split(' ');
    let (from, to) = parts.next()?.split_once('-')?;
    if parts.next()? != "r-xp" {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (from, to) = (address(from)?, address(to)?);
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_let_go_of() {
        let code = "55d0a000-55d0c000 r-xp 00002000 fe:00 1042  /usr/bin/it";
        assert_eq!(code_of(code), Some((0x55d0_a000, 0x55d0_c000)));
        for other in ["r--p", "rw-p", "rwxp", "r-xs"] {
            assert_eq!(code_of(&code.replace("r-xp", other)), None, "{other}");
        }
        assert_eq!(code_of(""), None);
        assert_eq!(code_of("z-55d0c000 r-xp"), None);
    }
}
