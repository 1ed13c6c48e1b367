//! The floor: how fast this machine starts `bash -c true` with nothing in the way.
#![expect(unsafe_code, reason = "posix_spawn itself is what is measured")]

use super::report::Samples;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use std::{
    ffi::{CStr, CString},
    io,
    process::ExitCode,
    ptr, thread,
    time::Duration,
};
use tokio::time::Instant;

/// What commands in slots have, as far as it changes what a shell does: the same work is compared.
/// Reading the locale is a twentieth of it.
const ENVIRONMENT: [&CStr; 5] = [
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"HOME=/",
    c"USER=slot",
    c"LC_CTYPE=C.UTF-8",
    c"TERM=dumb",
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Processes at a time.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// How long to measure.
    #[arg(long, default_value_t = 4, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What to start; it is given `-c true`.
    #[arg(long, default_value = "/bin/bash", value_name = "SHELL")]
    shell: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let shell = CString::new(options.shell.as_str()).context("read --shell")?;
    let started = Instant::now();
    let until = started + Duration::from_secs(options.seconds);
    let mut samples = Samples::default();
    thread::scope(|scope| {
        let spawners: Vec<_> =
            (0..options.parallel).map(|_| scope.spawn(|| spawn_until(&shell, until))).collect();
        for spawner in spawners {
            match spawner.join() {
                Ok(one) => samples.merge(one),
                Err(_) => samples.fail("a spawner panicked"),
            }
        }
    });
    let ran = json!({
        "bench": "floor", "command": [options.shell, "-c", "true"],
        "parallel": options.parallel, "seconds": options.seconds,
    });
    samples.print("spawns_per_s", 1, started.elapsed(), ran, options.json)
}

fn spawn_until(shell: &CStr, until: Instant) -> Samples {
    let mut samples = Samples::default();
    while Instant::now() < until {
        let before = Instant::now();
        match spawn_and_wait(shell) {
            Ok(0) => samples.add(before.elapsed()),
            Ok(status) => samples.fail(format!("wait status {status}")),
            Err(error) => {
                samples.fail(error);
                break;
            }
        }
    }
    samples
}

fn spawn_and_wait(shell: &CStr) -> io::Result<i32> {
    let argv = [
        shell.as_ptr().cast_mut(),
        c"-c".as_ptr().cast_mut(),
        c"true".as_ptr().cast_mut(),
        ptr::null_mut(),
    ];
    let mut environment = ENVIRONMENT.map(|it| it.as_ptr().cast_mut()).to_vec();
    environment.push(ptr::null_mut());
    let mut pid = 0;
    // SAFETY: null-terminated arrays of C strings; the child gets its own copies.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            shell.as_ptr(),
            ptr::null(),
            ptr::null(),
            argv.as_ptr(),
            environment.as_ptr(),
        )
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call; `pid` is our child, and nobody else waits for it.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}
