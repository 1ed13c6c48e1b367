//! The binary `slotmux`: everything in one. The only place that names every backend.

mod backends;
mod bench;
mod client;
mod cmd;
mod embedded;
mod fault;
mod out;
mod quote;
mod replay;
mod scratch;
mod settings;
mod span;
mod stop;

use clap::{CommandFactory, Parser, Subcommand};
use cmd::{acquire, completions, doctor, exec, leases, status};
use fault::Fault;
use std::{future::Future, io, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Many isolated workspaces ("slots") on few containers, for agentic RL
///
/// A pool hands out slots under leases; a small server in every container runs bash and file
/// tools in them.
#[derive(Debug, Parser)]
#[command(
    name = "slotmux",
    version,
    after_help = "\
Examples:
  slotmux replay examples/rollouts.jsonl     run trajectories in an embedded pool
  slotmux serve                              a pool with an HTTP API at 127.0.0.1:8080
  slotmux exec $(slotmux acquire) -- 'echo hello'
  slotmux agent                              graded jobs in containers, by HTTP

Exit codes: 0 it went well, 1 it did not, 2 wrong use or malformed input; see each command's help.
Logs go to stderr; SLOTMUX_LOG (or RUST_LOG) says which, such as `info` or `slotmux_pool=debug`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<cmd::serve::Options>),
    Replay(Box<cmd::replay::Options>),
    Bench(bench::Options),
    Agent(Box<cmd::agent::Options>),
    Doctor(Box<doctor::Options>),
    /// Serve slots: the process inside a container
    SandboxServer(Box<slotmux_sandbox_server::Options>),
    Acquire(acquire::Options),
    Exec(exec::Options),
    Renew(leases::RenewOptions),
    Release(leases::ReleaseOptions),
    Status(status::Options),
    Completions(completions::Options),
}

fn main() -> ExitCode {
    // Before anything else: a slot's zygote is this executable, started anew.
    if let Some(exit) = slotmux_sandbox_server::maybe_slot_zygote() {
        return exit;
    }
    match dispatch(Cli::parse().command) {
        Ok(exit) => exit,
        Err(fault) => fault.report(),
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Fault> {
    log(match command {
        Command::Serve(_) | Command::Agent(_) | Command::SandboxServer(_) => "info",
        _ => "warn",
    });
    match command {
        Command::Serve(options) => cmd::serve::run(*options),
        Command::Agent(options) => cmd::agent::run(*options),
        Command::Replay(options) => cmd::replay::run(*options),
        // It has a runtime of its own, and takes its token out of the environment before.
        Command::SandboxServer(options) => Ok(slotmux_sandbox_server::main(*options)),
        Command::Bench(options) => {
            bench::run(options).map_err(|error| match error.downcast::<Fault>() {
                Ok(fault) => fault,
                Err(error) => Fault::because("measure", &*error),
            })
        }
        Command::Doctor(options) => on_runtime(doctor::run(*options)),
        Command::Acquire(options) => on_runtime(acquire::run(options)),
        Command::Exec(options) => on_runtime(exec::run(options)),
        Command::Renew(options) => on_runtime(leases::renew(options)),
        Command::Release(options) => on_runtime(leases::release(options)),
        Command::Status(options) => on_runtime(status::run(options)),
        Command::Completions(options) => completions::run(&options, Cli::command()),
    }
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::because("start the runtime", &error))?
        .block_on(work)
}

fn log(default: &str) {
    let filter = EnvFilter::try_from_env("SLOTMUX_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
}
