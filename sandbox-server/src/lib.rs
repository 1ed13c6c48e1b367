//! The process inside each container: slots, tools, isolation, limits.
//!
//! `main` starts a zygote, puts up slots on the best rung of the isolation ladder, and serves them
//! over HTTP and over the Link until it is told to stop, its lifetime is over, or no pool has been
//! linked for too long. `maybe_slot_zygote` must come first in the `main` of every executable that
//! calls `main`: slots are forked from this executable started anew.

mod access;
mod cgroup;
mod clock;
mod disk;
pub mod doctor;
mod egress;
mod executions;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod init;
mod isolate;
mod ladder;
mod layers;
mod limited;
mod link;
mod listen;
mod options;
mod outcome;
mod passing;
mod resident;
mod server;
mod slot;
mod snapshots;
mod stop;
mod terminal;
mod trash;
mod uids;
mod user;
mod wire;

pub use isolate::ImageBy;
pub use ladder::Trial;
pub use limited::LimitedBy;
pub use options::{Options, SettingsError, TOKEN_VARIABLE};

use isolate::zygote::{self, Zygote};
use options::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::{Ground, Server};
use std::{error::Error, fmt::Write as _, fs, io, path::Path, process::ExitCode, sync::Arc};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};

/// `error: cause: root cause`, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Becomes a zygote, if that is what this process was started for. Call it before anything else.
pub fn maybe_slot_zygote() -> Option<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|it| it == zygote::ARGUMENT) {
        return Some(ExitCode::from(u8::try_from(zygote::live()).unwrap_or(1)));
    }
    None
}

/// Serves until told to stop. Takes the token out of this process's environment.
#[expect(clippy::print_stderr, reason = "errors of the command line go to people")]
pub fn main(options: Options) -> ExitCode {
    let cleanup = options.cleanup;
    let becomes = options.r#become;
    let settings = match Settings::new(options, take_token()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    if let Some(user) = becomes
        && let Err(error) = user::become_user(user, &settings.data_dir)
    {
        eprintln!("error: become another user: {}", chain(&error));
        return ExitCode::FAILURE;
    }
    if cleanup {
        if let Err(error) = server::clean_up_after(&settings) {
            eprintln!("error: {}", chain(&error));
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    few_arenas();
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            match error.downcast_ref() {
                Some(server::StartError::Isolation { .. }) => {
                    ExitCode::from(slotmux_protocol::Isolation::REFUSED)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// glibc keeps a heap for each thread; two are enough here, and memory is what slots are short of.
#[expect(unsafe_code, reason = "a setting of the allocator")]
fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers; called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Its own environment is what a process can be read of; the kernel's copy is overwritten too.
#[expect(unsafe_code, reason = "the environment is changed while there is one thread")]
fn take_token() -> Option<String> {
    let token = std::env::var(TOKEN_VARIABLE).ok();
    if token.is_some() {
        let name = std::ffi::CString::new(TOKEN_VARIABLE).unwrap_or_default();
        // SAFETY: no other thread exists yet; the value is a C string that belongs to this process.
        unsafe {
            let value = libc::getenv(name.as_ptr());
            if !value.is_null() {
                libc::memset(value.cast(), 0, libc::strlen(value));
            }
            std::env::remove_var(TOKEN_VARIABLE);
        }
    }
    token
}

/// Connections and slots need several descriptors each; what is usual suffices for few of them.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// A limit of file sizes is then an error of the write that meets it, and not the server's end.
/// The zygote sets signals back for what slots run.
#[expect(unsafe_code, reason = "signals have no safe interface")]
fn outlive_full_files() -> io::Result<()> {
    // SAFETY: no handler is installed, so none can be unsound.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    // Not to be read by processes of the same user: the landlock rung has only that.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    raise_open_files();
    outlive_full_files()?;
    let zygote = Zygote::start().map_err(server::StartError::Zygote)?;
    let ground = Ground::prepare(&settings, zygote)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_stack_size(512 << 10)
        .build()?;
    runtime.block_on(serve(settings, ground))
}

async fn serve(settings: Settings, mut ground: Ground) -> Result<(), Box<dyn Error>> {
    let (host, port) = (settings.host, settings.port);
    let listener = TcpListener::bind((host, port)).await.map_err(|error| {
        io::Error::new(error.kind(), format!("listen on {host}:{port}: {error}"))
    })?;
    let address = listener.local_addr()?;
    let authority = address.to_string();
    ground.serves_at(address.port());
    // From now on they are words to us: whoever sees that we are ready may say them at once.
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let server = Server::start(settings, ground).await?;
    if let Some(path) = &server.settings.ready_file {
        write_whole(path, &serde_json::json!({ "authority": authority }).to_string())?;
    }
    // No more than a wish.
    let _ = resident::let_go_of_code();
    tracing::info!(authority, isolation = %server.isolation, "serving");
    let router = http::router(Arc::clone(&server));
    let draining = server.draining.clone();
    let door = listen::Door::keep(server.slots_at_the_door())?;
    let seats = listen::Seats::default();
    let serving = tokio::spawn(listen::serve(listener, router, seats, door, draining));
    let why = until_told_to_stop(&server, terminate, interrupt).await;
    tracing::info!(why, "stopping");
    server.drain(server.grace.get().copied().unwrap_or(server.settings.grace)).await;
    server.ended.cancel();
    let mut links = server.links.subscribe();
    let said = async {
        // The sender lives as long as the server does.
        let _ = links.wait_for(|links| *links == 0).await;
        let _ = serving.await;
    };
    // Clients that keep their connections open are not waited for.
    let _ = timeout(std::time::Duration::from_millis(500), said).await;
    Ok(())
}

async fn until_told_to_stop(
    server: &Server,
    mut terminate: Signal,
    mut interrupt: Signal,
) -> &'static str {
    let lifetime = async {
        match server.settings.lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = server.stop.cancelled() => "the pool said so",
        () = lifetime => "its lifetime is over",
        () = orphaned(server) => "no pool has been linked for too long",
    }
}

async fn orphaned(server: &Server) {
    let Some(patience) = server.settings.orphaned_after else {
        return std::future::pending().await;
    };
    let mut links = server.links.subscribe();
    loop {
        // The sender lives as long as the server does.
        let _ = links.wait_for(|links| *links == 0).await;
        if timeout(patience, links.wait_for(|links| *links > 0)).await.is_err() {
            return;
        }
    }
}

/// Readers see nothing or all of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(&draft, path)
}
