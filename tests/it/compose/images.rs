//! The images under test, made of what this machine has.
#![expect(clippy::print_stdout, reason = "what was not tested is said")]

use super::house::{BASE, NEXT, docker, done, root};
use slotmux_tests::slotmux;
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering},
};

/// The images under test; removed with the last who uses them.
#[derive(Debug)]
pub(super) struct Images {
    tag: String,
}

impl Images {
    /// `None`: they cannot be had on this machine, and that was said.
    pub(super) fn of(test: &str) -> Option<Arc<Self>> {
        static MADE: Mutex<Weak<Images>> = Mutex::new(Weak::new());
        let server = match server() {
            Ok(server) => server,
            Err(why) => {
                missing(test, &why);
                return None;
            }
        };
        // What a test that failed in here has left is nothing.
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = made.upgrade() {
            return Some(images);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let images = Arc::new(Self { tag: format!("it-{}-{number}", std::process::id()) });
        images.make(&server);
        *made = Arc::downgrade(&images);
        Some(images)
    }

    fn make(&self, server: &Path) {
        let built = tempfile::tempdir().unwrap();
        std::fs::copy(slotmux(), built.path().join("slotmux")).unwrap();
        std::fs::copy(server, built.path().join("slotmux-sandbox-server")).unwrap();
        let mut command = Command::new(root().join("packaging/images.sh"));
        command.args(["--base", BASE, "--tag", &self.tag]).arg("--built").arg(built.path());
        done(&mut command).unwrap();
    }

    pub(super) fn pool(&self) -> String {
        format!("slotmux:{}", self.tag)
    }

    pub(super) fn server(&self) -> String {
        format!("slotmux-sandbox-server:{}", self.tag)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // They were not made if their test failed before.
        let _ = docker(&["rmi", "--force", &self.pool(), &self.server()]);
    }
}

/// The shipped server, where there is an engine to make images at.
fn server() -> Result<PathBuf, String> {
    docker(&["version", "--format", "{{.Server.Version}}"])
        .map_err(|why| format!("no Docker engine: {why}"))?;
    docker(&["image", "inspect", BASE])
        .map_err(|_| "the images are not made: run `tests/engine.sh images`".to_owned())?;
    let server = env::var_os("SLOTMUX_STATIC_SERVER");
    server.map(PathBuf::from).ok_or_else(|| "SLOTMUX_STATIC_SERVER is not set".to_owned())
}

/// What must be there in CI is a failure, if root could have installed it.
pub(super) fn missing(test: &str, why: &str) {
    let owed = rustix::process::geteuid().is_root();
    let ci = env::var("CI").is_ok_and(|it| it == "true");
    assert!(!(owed && ci), "CI must have it: {why}");
    println!("skipped: {test}: {why}");
}
