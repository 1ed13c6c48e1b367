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
    let bytes = fs::read(&server).unwrap();
    assert!(!bytes.windows(14).any(|it| it == b"ld-linux-x86-6"), "it asks for a loader");
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
