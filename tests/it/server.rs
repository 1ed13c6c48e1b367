//! The small static executable.

use slotmux_tests::open_dir;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Made by `test.sh`; without it there is nothing to look at.
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn static_server() -> Option<PathBuf> {
    let path = std::env::var_os("SLOTMUX_STATIC_SERVER").map(PathBuf::from);
    assert!(path.is_some() || std::env::var_os("CI").is_none(), "SLOTMUX_STATIC_SERVER is not set");
    if path.is_none() {
        println!("skipped: SLOTMUX_STATIC_SERVER is not set; ./test.sh makes it");
    }
    path
}

#[test]
fn the_static_executable_needs_no_file_of_its_root() {
    let Some(server) = static_server() else { return };
    assert!(!asks_for_a_loader(&fs::read(&server).unwrap()));
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may change the root directory");
        return;
    }
    let root = open_dir();
    fs::copy(&server, root.path().join("server")).unwrap();
    let mut command = Command::new("/server");
    command.arg("--version");
    in_root(&mut command, root.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Whether an ELF file (64 bits, little-endian) has a program header of the kind `PT_INTERP`.
fn asks_for_a_loader(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte))
    };
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01");
    let (first, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).any(|it| number(first + it * size, 4) == PT_INTERP as usize)
}

#[expect(unsafe_code, reason = "chroot has to come between fork and exec")]
fn in_root(command: &mut Command, root: &Path) {
    use std::os::unix::process::CommandExt as _;
    let root = root.to_owned();
    // SAFETY: two system calls on a path that was made before the fork.
    unsafe {
        command.pre_exec(move || {
            rustix::process::chroot(&root)?;
            Ok(rustix::process::chdir("/")?)
        });
    }
}
