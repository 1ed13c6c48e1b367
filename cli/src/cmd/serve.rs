//! `slotmux serve`: a pool with its HTTP API.

use crate::{
    backends::Running,
    cmd::serving::{Api, listen},
    fault::Fault,
    out,
    settings::{AtStop, Flags, Settings},
    stop::Signals,
};
use clap::Args;
use slotmux_pool::{
    Pool, PoolHandle, Shutdown,
    api::{ApiSettings, router},
};
use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::PathBuf, process::ExitCode};
use tokio_util::sync::CancellationToken;

/// Run a pool with an HTTP API
///
/// Containers are child processes of this machine, or with --backend docker containers of any image
/// at a Docker engine. What was running when the pool was killed, or stopped with
/// --keep-containers, is taken over at the next start, with its leases.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux serve
  slotmux serve --listen 127.0.0.1:9000 --slots 16 --containers-max 4 --network on
  slotmux serve --backend docker --image debian:12
  SLOTMUX_TOKEN=secret slotmux serve --config slotmux.toml --listen 0.0.0.0:8080

A settings file:
  listen = \"127.0.0.1:8080\"
  backend = \"docker\"
  [[profile]]
  name = \"small\"
  image = \"debian:12\"
  slots = 16
  containers_max = 4

Flags win over SLOTMUX_* variables, these over the file, the file over defaults; --print-settings
shows the result.

Exit codes: 0 stopped when asked to, 1 could not start or ended by a fault, 2 bad arguments or
settings (every fault is listed).")]
pub(crate) struct Options {
    /// Settings in TOML
    #[arg(long, env = "SLOTMUX_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    flags: Flags,

    /// Print the settings that would be used, as a settings file, and exit
    #[arg(long)]
    print_settings: bool,
}

pub(crate) fn run(options: Options) -> Result<ExitCode, Fault> {
    let settings = Settings::new(options.config.as_deref(), options.flags)?;
    if options.print_settings {
        out::print(&settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    crate::on_runtime(run_pool(settings))
}

async fn run_pool(settings: Settings) -> Result<ExitCode, Fault> {
    let mut signals = Signals::new()?;
    // First: a second pool must not get as far as the containers of the first.
    let listener = listen(settings.listen).await?;
    make_state_dir(&settings)?;
    let backend = Running::start(settings.backend.clone(), &settings.state_dir)?;
    let pool = Pool::start(settings.pool.clone(), backend.backend())
        .await
        .map_err(|error| Fault::because("start the pool", &error))?;
    let address = listener.local_addr().map_err(|error| Fault::because("listen", &error))?;
    let closing = CancellationToken::new();
    let api = ApiSettings {
        token: settings.token.as_deref().map(Into::into),
        closing: closing.clone(),
        ..ApiSettings::default()
    };
    let api = Api::start(listener, router(pool.clone(), api), closing);
    tracing::info!(pool = settings.pool.name, url = %format_args!("http://{address}"), "serving");
    let ended = tokio::select! {
        signal = signals.next() => Ok(signal),
        () = pool.closed() => Err(Fault::failed("the pool ended by itself; see the log")),
    };
    match ended {
        Ok(signal) => {
            tracing::info!(signal, "stopping; once more to end at once");
            stop(pool, &backend, api, settings.at_stop, &mut signals).await
        }
        Err(fault) => {
            api.stop().await;
            Err(fault)
        }
    }
}

/// A second signal means now. What is left then is found by the next start, or ends by itself.
async fn stop(
    pool: PoolHandle,
    backend: &Running,
    api: Api,
    at_stop: AtStop,
    signals: &mut Signals,
) -> Result<ExitCode, Fault> {
    let how = match at_stop {
        AtStop::StopContainers => Shutdown::StopContainers,
        AtStop::KeepContainers => Shutdown::KeepContainers,
    };
    let orderly = async {
        // Together: who waits in the API for the pool is answered by the pool's end.
        tokio::join!(pool.shutdown(how), api.stop());
        backend.settled().await;
    };
    tokio::select! {
        () = orderly => Ok(ExitCode::SUCCESS),
        signal = signals.next() => {
            Err(Fault::failed(format!("ended by a second {signal} before everything was stopped")))
        }
    }
}

fn make_state_dir(settings: &Settings) -> Result<(), Fault> {
    // Users of slots pass through it to their files, and cannot look around.
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let path = &settings.state_dir;
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| {
        Fault::because(format!("make the state directory `{}`", path.display()), &error)
            .hint("choose another one with --state-dir")
    })
}
