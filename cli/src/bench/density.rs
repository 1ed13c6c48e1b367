//! What idle slots cost: one sandbox-server with few slots and one with many, side by side.

use super::connection::{Connection, Target};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const START_PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Slots of the second server; the first has ten.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u16).range(11..=1_000))]
    slots: u16,
    /// Executable of the server; without it, this one.
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Outcome {
    success: bool,
    output: String,
    error: String,
}

/// A server of our own and everything that it forked.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
    authority: String,
    started: Duration,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    const FEW: u16 = 10;
    let executable = match options.server {
        Some(path) => path,
        None => std::env::current_exe().context("find this executable")?,
    };
    let few = Server::start(&executable, FEW).await?;
    let few_bytes = few.memory_bytes();
    few.stop()?;
    let many = Server::start(&executable, options.slots).await?;
    let many_bytes = many.memory_bytes();
    let begun = Instant::now();
    many.all_answer(options.slots).await?;
    let answered = begun.elapsed();
    let started = many.started;
    many.stop()?;
    let per_slot = many_bytes.saturating_sub(few_bytes) / u64::from(options.slots - FEW);
    let report = json!({
        "bytes_per_idle_slot": per_slot, "slots": options.slots, "answering": options.slots,
        "server_bytes": many_bytes, "start_ms": millis(started),
        "one_bash_in_each_ms": millis(answered),
    });
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{report}")?;
    } else {
        for (name, value) in report.as_object().into_iter().flatten() {
            writeln!(out, "{name:<20} {value}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Server {
    async fn start(executable: &Path, slots: u16) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Ready {
            authority: String,
        }
        let dir = tempfile::Builder::new().prefix("slotmux-bench-").tempdir()?;
        let ready = dir.path().join("ready");
        let mut command = Command::new(executable);
        let own = std::env::current_exe().is_ok_and(|it| it == executable);
        if own {
            command.arg("sandbox-server");
        }
        command.args(["--port", "0", "--slots", &slots.to_string(), "--ready-file"]);
        command.arg(&ready).arg("--data-dir").arg(dir.path().join("data"));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().context("start a sandbox-server")?;
        let text = loop {
            if let Ok(text) = fs::read_to_string(&ready) {
                break text;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the sandbox-server ended instead of serving: {status}");
            }
            if begun.elapsed() > START_PATIENCE {
                // What it has put up goes with it.
                child.kill()?;
                child.wait()?;
                bail!("the sandbox-server was not ready within {START_PATIENCE:?}");
            }
            sleep(Duration::from_millis(2)).await;
        };
        let Ready { authority } = serde_json::from_str(&text)?;
        Ok(Self { child, dir, authority, started: begun.elapsed() })
    }

    /// Of the server and all that descends from it, pages that are shared counted once.
    fn memory_bytes(&self) -> u64 {
        let parents: HashMap<u32, u32> =
            pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let own = self.child.id();
        let descends = |mut pid: u32| {
            while pid != own {
                match parents.get(&pid) {
                    Some(parent) => pid = *parent,
                    None => return false,
                }
            }
            true
        };
        parents.keys().filter(|pid| descends(**pid)).filter_map(|pid| share_bytes(*pid)).sum()
    }

    async fn all_answer(&self, slots: u16) -> anyhow::Result<()> {
        let target = Target::new(&format!("http://{}", self.authority), None)?;
        let mut connection = Connection::open(&target).await?;
        let calls = (0..slots).map(|slot| {
            json!({ "slot_id": format!("slot_{slot}"), "tool": "bash", "args": { "command": format!("echo {slot}") } })
        });
        let calls: Vec<_> = calls.collect();
        let results: Vec<Outcome> = connection.json(Method::POST, "/batch", &json!(calls)).await?;
        for (slot, result) in results.iter().enumerate() {
            ensure!(result.success, "slot_{slot}: {}", result.error);
            ensure!(result.output == slot.to_string(), "slot_{slot} answered {:?}", result.output);
        }
        Ok(())
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "the sandbox-server ended with {status}");
        self.dir.close().context("remove the directory of the benchmark")
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Proportional set size.
fn share_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
