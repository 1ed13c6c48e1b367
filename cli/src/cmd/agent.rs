//! `slotmux agent`: one-shot graded jobs, a container each.

use crate::{
    backends::kept_owner,
    cmd::serving::{Api, listen},
    fault::Fault,
    settings::{Listen, default_state_dir},
    stop::Signals,
};
use clap::Args;
use slotmux_agent::{
    Address, Agent, AgentHandle, ApiSettings, BackendSettings, Runtime, Settings, router,
    serve_backend,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const OWNER_FILE: &str = "owner";
const DEFAULT_LISTEN: &str = "127.0.0.1:8090";

/// Run graded jobs in containers, one for each
///
/// With the address of an INGInious backend the agent takes its jobs from there, as INGInious's own
/// Docker agent does: same images, same tasks, same results. With --listen, or without a backend, it
/// takes them by HTTP, and also runs commands in any image. Jobs that run when the agent is killed
/// are taken over by the next one with the same directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux agent tcp://backend:2001 --tasks /srv/tasks --concurrency 8
  slotmux agent                                     # jobs by HTTP, at http://127.0.0.1:8090
  SLOTMUX_TOKEN=secret slotmux agent --listen 0.0.0.0:8090 --warm 2
  curl -s localhost:8090/v1/jobs -d '{\"job_id\": \"j1\", \"plain\":
       {\"image\": \"debian:12\", \"command\": [\"bash\", \"-c\", \"exit 3\"]}}'
  curl -s 'localhost:8090/v1/jobs/j1/result?wait_s=60'

Exit codes: 0 stopped when asked to, 1 could not start or ended by a fault, 2 bad arguments.")]
pub(crate) struct Options {
    /// INGInious's backend: `tcp://HOST:PORT` or `ipc://PATH`
    #[arg(value_name = "BACKEND")]
    backend: Option<Address>,

    /// A folder for each course, and in it one for each task
    #[arg(long, env = "SLOTMUX_TASKS", value_name = "DIR")]
    tasks: Option<PathBuf>,

    /// Jobs at a time [default: one for each processor]
    #[arg(long, env = "SLOTMUX_CONCURRENCY", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: Option<u16>,

    /// By which people know this agent [default: the name of the machine]
    #[arg(long, env = "SLOTMUX_FRIENDLY_NAME", value_name = "NAME")]
    friendly_name: Option<String>,

    /// Take jobs by HTTP here [default: 127.0.0.1:8090 without a backend, else nowhere]
    #[arg(long, env = "SLOTMUX_AGENT_LISTEN", value_name = "HOST:PORT")]
    listen: Option<Listen>,

    /// Ask this of every client of HTTP, as a bearer token. The variable is safer than the flag
    #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// For folders of jobs, and what the next agent needs to know of them; the engine mounts from it
    /// [default: `agent` in /var/lib/slotmux, or in ~/.local/state/slotmux]
    #[arg(long, alias = "tmpdir", env = "SLOTMUX_AGENT_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The engine: `unix://PATH` [default: `DOCKER_HOST`, else the usual socket]
    #[arg(long, env = "SLOTMUX_DOCKER_HOST", value_name = "URL")]
    docker_host: Option<String>,

    /// Whose the containers are: another agent of this name takes them over, or removes them
    /// [default: one that is drawn and kept in the directory]
    #[arg(long, env = "SLOTMUX_AGENT_OWNER", value_name = "NAME")]
    owner: Option<String>,

    /// Containers to have started ahead for each environment that is asked for
    #[arg(long, env = "SLOTMUX_WARM", value_name = "N", default_value_t = 1)]
    warm: u16,

    /// Processes of a container
    #[arg(long, value_name = "N", default_value_t = 1_024)]
    processes: u32,

    /// Student containers of a job at the same time
    #[arg(long, value_name = "N", default_value_t = 32)]
    students: u16,

    /// Where people reach the ports of containers
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    debug_host: String,

    /// Where the engine listens for these ports
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    debug_bind: IpAddr,

    /// Ports for containers that want some
    #[arg(long, value_name = "FIRST-LAST", default_value = "64120-64130", value_parser = ports)]
    debug_ports: RangeInclusive<u16>,

    /// Let people look into containers by ssh
    #[arg(long)]
    ssh: bool,

    /// A runtime of the engine and the type of environment that it is for, and `root` if it runs as
    /// root; repeatable [default: what the engine has]
    #[arg(long, value_names = ["NAME", "TYPE", "root"], num_args = 2..=3)]
    runtime: Vec<String>,
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(first..=last),
        _ => Err(format!("`{text}` is not a range of ports, such as 64120-64130")),
    }
}

pub(crate) fn run(options: Options) -> Result<ExitCode, Fault> {
    let listen = match (options.listen, &options.backend) {
        (Some(listen), _) => Some(listen),
        (None, None) => Some(DEFAULT_LISTEN.parse().map_err(Fault::usage)?),
        (None, Some(_)) => None,
    };
    let token = options.token.clone().filter(|token| !token.is_empty());
    if let Some(listen) = listen
        && token.is_none()
        && !listen.is_loopback()
    {
        return Err(Fault::usage(format!(
            "{listen} can be reached from elsewhere, and there is no token"
        ))
        .hint("set SLOTMUX_TOKEN, or listen on 127.0.0.1"));
    }
    let settings = settings(&options)?;
    let backend = options.backend.map(|address| {
        BackendSettings::new(address, options.friendly_name.unwrap_or_else(machine))
    });
    crate::on_runtime(run_agent(settings, backend, listen, token))
}

fn settings(options: &Options) -> Result<Settings, Fault> {
    let dir = options.dir.clone().unwrap_or_else(|| default_state_dir().join("agent"));
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map_err(|error| Fault::because(format!("find `{}`", path.display()), &error))
    };
    let dir = absolute(&dir)?;
    let owner = match &options.owner {
        Some(owner) => owner.clone(),
        None => kept_owner(&dir, OWNER_FILE).map_err(|error| {
            Fault::because(format!("keep the owner of containers in `{}`", dir.display()), &error)
        })?,
    };
    let mut settings = Settings::new(owner, dir);
    if let Some(tasks) = &options.tasks {
        if !tasks.is_dir() {
            return Err(Fault::usage(format!("--tasks: no directory `{}`", tasks.display())));
        }
        settings.tasks = Some(absolute(tasks)?);
    }
    if let Some(concurrency) = options.concurrency {
        settings.concurrency = concurrency;
    }
    settings.engine.clone_from(&options.docker_host);
    settings.warm = options.warm;
    settings.processes = options.processes;
    settings.students = options.students;
    settings.public_host.clone_from(&options.debug_host);
    settings.bind = options.debug_bind;
    settings.ports = options.debug_ports.clone();
    settings.ssh = options.ssh;
    settings.runtimes = runtimes(&options.runtime)?;
    Ok(settings)
}

/// `NAME TYPE`, and `root` behind some of them.
fn runtimes(words: &[String]) -> Result<Vec<Runtime>, Fault> {
    let mut runtimes: Vec<Runtime> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(name) = words.next() {
        let environment_type = words.next();
        let environment_type = environment_type.ok_or_else(|| {
            Fault::usage(format!("--runtime {name}: the type of environment is missing"))
        })?;
        runtimes.push(Runtime {
            name: name.clone(),
            environment_type: environment_type.clone(),
            run_as_root: words.next_if(|word| *word == "root").is_some(),
            gpu: name.contains("nvidia"),
        });
    }
    Ok(runtimes)
}

fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn run_agent(
    settings: Settings,
    backend: Option<BackendSettings>,
    address: Option<Listen>,
    token: Option<String>,
) -> Result<ExitCode, Fault> {
    let mut signals = Signals::new()?;
    let listener = match address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let concurrency = settings.concurrency;
    let agent =
        Agent::start(settings).await.map_err(|error| Fault::because("start the agent", &error))?;
    let adopted = agent.take_adopted();
    let door = backend.map(|backend| {
        tracing::info!(name = backend.friendly_name, concurrency, "serving a backend");
        // Nobody knows any more which door a job came by: both hear of it, and one has no use for it.
        Door::open(agent.clone(), backend, adopted.clone())
    });
    let api = listener.map(|listener| {
        let closing = CancellationToken::new();
        let api = ApiSettings {
            token: token.as_deref().map(Into::into),
            closing: closing.clone(),
            ..ApiSettings::default()
        };
        Api::start(listener, router(agent.clone(), api, adopted), closing)
    });
    let signal = signals.next().await;
    tracing::info!(signal, "stopping; once more to end at once");
    tokio::select! {
        () = stop(agent, door, api) => Ok(ExitCode::SUCCESS),
        signal = signals.next() => {
            Err(Fault::failed(format!("ended by a second {signal} before every job had ended")))
        }
    }
}

/// Answers are said before the connection goes.
async fn stop(agent: AgentHandle, door: Option<Door>, api: Option<Api>) {
    let door = async {
        if let Some(door) = door {
            door.close().await;
        }
    };
    tokio::join!(agent.shutdown(), door);
    if let Some(api) = api {
        api.stop().await;
    }
}

/// The way to a backend.
struct Door {
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Door {
    fn open(
        agent: AgentHandle,
        settings: BackendSettings,
        adopted: Vec<slotmux_agent::JobFollower>,
    ) -> Self {
        let closing = CancellationToken::new();
        let serving = tokio::spawn(serve_backend(agent, settings, adopted, closing.clone()));
        Self { closing, serving }
    }

    async fn close(self) {
        self.closing.cancel();
        // It ends by itself, or it panicked, which was logged.
        let _ = self.serving.await;
    }
}
