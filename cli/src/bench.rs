//! `slotmux bench`: loads that give figures, meant to be set beside one another in one run.
//!
//! With `--json` each prints one object: a rate, `p50_ms`, `p99_ms`, `errors`, and what was run.

mod connection;
mod containers;
mod density;
mod floor;
mod leases;
mod report;
mod slots;
mod tools;

use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Measure: a running server or pool, or this machine's floor.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux bench floor --parallel 2 --seconds 4
  slotmux bench tools --url http://127.0.0.1:8080 --wire atropos --tool bash --batch 10
  slotmux bench leases --url http://127.0.0.1:8080 --parallel 64
  slotmux bench slots fork --url http://127.0.0.1:8181 --files 10000 --bytes 100000
  slotmux bench density --slots 500
  slotmux bench containers --backend docker --image debian:12

Exit codes: 0 measured without errors, 1 there were errors, 2 bad arguments.")]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Bare `posix_spawn` of `bash -c true`: what no server can beat.
    Floor(floor::Options),
    /// Tool calls in batches, against anything that speaks the wire.
    Tools(tools::Options),
    /// One slot of a sandbox-server: sessions, resets, forks, one after another.
    Slots(slots::Options),
    /// What idle slots cost in memory, and whether all of them answer.
    Density(density::Options),
    /// How long containers take to start, beside `docker run` of the same image.
    Containers(Box<containers::Options>),
    /// Acquire and release, with or without a call in between, against a pool.
    Leases(leases::Options),
}

pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.what {
        What::Floor(options) => floor::run(&options),
        What::Tools(options) => on_runtime(tools::run(options)),
        What::Slots(options) => on_runtime(slots::run(options)),
        What::Density(options) => on_runtime(density::run(options)),
        What::Containers(options) => on_runtime(containers::run(*options)),
        What::Leases(options) => on_runtime(leases::run(options)),
    }
}

fn on_runtime(bench: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    // One thread: the load must leave the machine to what is measured.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(bench)
}
