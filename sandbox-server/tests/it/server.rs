//! A server of a test's own. When it goes, it is told to stop, and must leave nothing behind.

use crate::{
    host::{self, Process},
    rung::{Rung, User},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tempfile::TempDir;

/// Nothing here takes as long, even on a machine that is busy with other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Setup<'a> {
    pub(crate) slots: u16,
    pub(crate) args: &'a [&'a str],
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// Show this test executable to the slots, for [`Server::probe`].
    pub(crate) probe: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { slots: 2, args: &[], env: &[], probe: false }
    }
}

/// A server that ended instead of serving, and what it said.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) log: String,
}

pub(crate) struct Server {
    pub(crate) rung: &'static Rung,
    pub(crate) authority: String,
    pub(crate) container: String,
    pub(crate) http: reqwest::Client,
    /// Sent with each request.
    pub(crate) token: Option<String>,
    pub(crate) dir: TempDir,
    child: Child,
    exited: OwnedFd,
    ended: bool,
}

impl Server {
    pub(crate) fn start(rung: &'static Rung) -> Self {
        Self::with(rung, Setup::default())
    }

    pub(crate) fn with(rung: &'static Rung, setup: Setup<'_>) -> Self {
        match Self::try_start(rung, setup) {
            Ok(server) => server,
            Err(failed) => panic!("{}: the server does not start: {failed:?}", rung.name),
        }
    }

    pub(crate) fn try_start(rung: &'static Rung, setup: Setup<'_>) -> Result<Self, Failed> {
        Self::start_in(home(rung), rung, setup)
    }

    /// `prepare` has the last word on the command that starts it.
    pub(crate) fn start_after(
        rung: &'static Rung,
        setup: Setup<'_>,
        prepare: impl Fn(&mut Command),
    ) -> Result<Self, Failed> {
        Self::launch(home(rung), rung, setup, prepare)
    }

    /// `dir` is the home of one server after another.
    pub(crate) fn start_in(
        dir: TempDir,
        rung: &'static Rung,
        setup: Setup<'_>,
    ) -> Result<Self, Failed> {
        Self::launch(dir, rung, setup, |_| {})
    }

    fn launch(
        dir: TempDir,
        rung: &'static Rung,
        setup: Setup<'_>,
        prepare: impl Fn(&mut Command),
    ) -> Result<Self, Failed> {
        let container = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let ready_file = dir.path().join("ready");
        let _ = fs::remove_file(&ready_file);
        let mut command = command(dir.path(), rung);
        command
            .args(["--host", "127.0.0.1", "--port", "0", "--container", &container])
            .args(["--slots", &setup.slots.to_string(), "--isolation-min", "none"])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stderr(File::create(dir.path().join("log")).unwrap())
            .args(setup.args)
            .envs(setup.env.iter().copied());
        // Should the tests be killed, it does not outlive them for long.
        if !setup.args.contains(&"--lifetime-s") {
            command.args(["--lifetime-s", "900"]);
        }
        if let Some(isolation) = rung.isolation {
            command.args(["--isolation", isolation]);
        }
        if setup.probe {
            fs::create_dir_all(dir.path().join("probe")).unwrap();
            fs::set_permissions(dir.path().join("probe"), Permissions::from_mode(0o755)).unwrap();
            place(&std::env::current_exe().unwrap(), &dir.path().join("probe/probe"));
            command.arg("--expose").arg(dir.path().join("probe"));
        }
        prepare(&mut command);
        let child = match command.spawn() {
            Ok(child) => child,
            // Without a log: it was not even started.
            Err(error) if error.raw_os_error() == Some(libc::EDQUOT) => {
                return Err(Failed { log: String::new() });
            }
            Err(error) => panic!("{}: {error}", rung.name),
        };
        let exited = pidfd_open(pid_of(&child), PidfdFlags::empty()).unwrap();
        let mut server = Self {
            rung,
            authority: String::new(),
            container,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            token: None,
            dir,
            child,
            exited,
            ended: false,
        };
        server.await_ready(&ready_file)?;
        Ok(server)
    }

    fn await_ready(&mut self, ready_file: &Path) -> Result<(), Failed> {
        for _ in 0..4_000 {
            if let Ok(text) = fs::read_to_string(ready_file) {
                let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
                ready["authority"].as_str().unwrap().clone_into(&mut self.authority);
                return Ok(());
            }
            if self.exit_within(Duration::from_millis(5)).is_some() {
                return Err(Failed { log: self.log() });
            }
        }
        panic!("the server does not become ready:\n{}", self.log());
    }

    pub(crate) fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// As the host sees it.
    pub(crate) fn workspace(&self, slot: u16) -> PathBuf {
        self.data_dir().join(format!("slots/slot_{slot}/workspace"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn exit_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let limit = Timespec {
            tv_sec: limit.as_secs().try_into().unwrap(),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.exited, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).unwrap_or(0) == 0 {
            return None;
        }
        self.ended = true;
        Some(self.child.wait().unwrap())
    }

    /// Kills it as an out-of-memory killer would, and gives its home back.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit_within(LIMIT).unwrap();
    }

    /// Every process that has to do with this server: itself, what it has started, and what was
    /// started by those.
    pub(crate) fn processes(&self) -> Vec<Process> {
        host::processes_of(self.pid(), &self.container)
    }

    /// Stops it, and looks that it has left nothing behind.
    pub(crate) fn stop(&mut self) {
        let processes = self.processes();
        self.signal(Signal::TERM);
        let status = self.exit_within(LIMIT);
        let status = status.unwrap_or_else(|| panic!("it does not stop:\n{}", self.log()));
        assert!(status.success(), "it ended with {status}:\n{}", self.log());
        self.assert_nothing_left(&processes);
    }

    pub(crate) fn assert_nothing_left(&self, processes: &[Process]) {
        let alive = processes.iter().filter(|it| it.is_alive()).collect::<Vec<_>>();
        assert!(alive.is_empty(), "left alive: {alive:?}\n{}", self.log());
        let alive = host::marked_in_depth(&self.container);
        assert!(alive.is_empty(), "left alive: {alive:?}\n{}", self.log());
        let cgroups = host::cgroups_named(&format!("slotmux-{}", self.container));
        assert!(cgroups.is_empty(), "cgroups left: {cgroups:?}\n{}", self.log());
        assert_eq!(self.left_in_data_dir(), [".lock"], "files left\n{}", self.log());
    }

    pub(crate) fn left_in_data_dir(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data_dir()).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of {} on {}:\n{}", self.container, self.rung.name, self.log());
        }
        if self.ended {
            return;
        }
        if !std::thread::panicking() {
            return self.stop();
        }
        self.signal(Signal::TERM);
        if self.exit_within(LIMIT).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

/// A directory that the server's user and those of its slots can pass through.
pub(crate) fn home(rung: &Rung) -> TempDir {
    let dir = tempfile::Builder::new().prefix("slotmux-it-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    place(Path::new(env!("CARGO_BIN_EXE_slotmux-sandbox-server")), &dir.path().join("server"));
    if let Some(uid) = other_user(rung) {
        chown(dir.path(), Some(uid), Some(uid)).unwrap();
    }
    dir
}

/// The server's command in `dir`, as the user that the rung says. No argument is given yet.
pub(crate) fn command(dir: &Path, rung: &Rung) -> Command {
    let mut command = Command::new(dir.join("server"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("NOMAD_ALLOC_DIR");
    if other_user(rung).is_some() {
        let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir).unwrap());
        // With a uid std also drops the supplementary groups.
        command.uid(uid).gid(uid);
    }
    command
}

/// A user for each server: the kernel counts processes by user.
fn other_user(rung: &Rung) -> Option<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let other = rung.user == User::Ordinary && rustix::process::geteuid().is_root();
    let first = 1_000_000 + (std::process::id() % 1_000) * 1_000;
    other.then(|| first + NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The target directory may be closed to other users: it gets a second name, or is copied.
fn place(executable: &Path, to: &Path) {
    if to.exists() || fs::hard_link(executable, to).is_ok() {
        return;
    }
    // By another process: while this one has it open for writing, a server that another thread
    // starts would inherit that, and the kernel then refuses to run it.
    let copied = Command::new("cp").arg(executable).arg(to).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
}
