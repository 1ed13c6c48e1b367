//! The command line of a sandbox-server.
//!
//! The token goes by the environment: a command line is for everybody on the machine to read.

use crate::{LocalSettings, layout::ContainerDir};
use rustix::process::setsid;
use slotmux_backend::LaunchSpec;
use slotmux_protocol::{ContainerId, Network};
use std::{
    env,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    process::{Command, Stdio},
    time::Duration,
};

/// Read by the sandbox-server, which removes it from its environment at once.
const TOKEN_VARIABLE: &str = "SLOTMUX_CONTAINER_TOKEN";

/// What a sandbox-server sees of our environment, which may hold secrets of the pool.
const PASSED_VARIABLES: [&str; 6] =
    ["PATH", "LANG", "TMPDIR", "SLOTMUX_LOG", "RUST_LOG", "RUST_BACKTRACE"];

/// Runs `spec` in `dir`, in a session of its own: it outlives the pool and its terminal.
pub(crate) fn serve(
    settings: &LocalSettings,
    spec: &LaunchSpec,
    dir: &ContainerDir,
    token: &str,
) -> io::Result<Command> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.log())?;
    let mut command = base(settings, dir, &spec.container);
    let mut option = |name: &str, value: &dyn AsRef<OsStr>| {
        command.arg(name).arg(value);
    };
    option("--host", &"127.0.0.1");
    option("--port", &"0");
    option("--slots", &spec.slots.to_string());
    option("--isolation-min", &spec.isolation_min.as_str());
    option("--root", &spec.root.as_str());
    option("--network", &network(spec.network));
    option("--lifetime-s", &seconds(spec.lifetime));
    option("--orphaned-after-s", &seconds(spec.orphaned_after));
    option("--ready-file", &dir.ready());
    let limits = spec.slot_limits;
    option("--memory-bytes-max", &limits.memory_bytes_max.to_string());
    option("--cpu-millis-max", &limits.cpu_millis_max.to_string());
    option("--disk-bytes-max", &limits.disk_bytes_max.to_string());
    option("--processes-max", &limits.processes_max.to_string());
    option("--open-files-max", &limits.open_files_max.to_string());
    option("--file-bytes-max", &limits.file_bytes_max.to_string());
    option("--tmp-bytes-max", &limits.tmp_bytes_max.to_string());
    command.env(TOKEN_VARIABLE, token).stdout(log.try_clone()?).stderr(log);
    detach(&mut command);
    Ok(command)
}

/// Removes what a sandbox-server that was killed left behind outside of `dir`.
pub(crate) fn clean_up(
    settings: &LocalSettings,
    dir: &ContainerDir,
    container: &ContainerId,
) -> Command {
    let mut command = base(settings, dir, container);
    command.arg("--cleanup").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// 32 random bytes, in hexadecimal.
pub(crate) fn new_token() -> io::Result<String> {
    use std::fmt::Write;
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut token, byte| {
        // Writing to a string never fails.
        let _ = write!(token, "{byte:02x}");
        token
    }))
}

fn base(settings: &LocalSettings, dir: &ContainerDir, container: &ContainerId) -> Command {
    let mut command = Command::new(&settings.program);
    command
        .args(&settings.args_before)
        .arg("--data-dir")
        .arg(dir.data())
        // One argument, so that a name with a leading dash is no option.
        .arg(format!("--container={container}"))
        .stdin(Stdio::null())
        .current_dir("/")
        .env_clear();
    for name in PASSED_VARIABLES {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn network(network: Network) -> &'static str {
    match network {
        Network::On => "on",
        Network::Off => "off",
        Network::AllowList => "allow",
    }
}

/// Whole seconds, up: a short time never becomes none.
fn seconds(duration: Duration) -> String {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).to_string()
}

#[expect(unsafe_code, reason = "a session of its own can only be made in the child")]
fn detach(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and nothing is allocated here.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
}
