//! What this executable does when a slot runs it: things that a shell cannot do.
//!
//! Each function returns a line for everything that went otherwise than it should.

mod attempts;
mod bombs;
mod calls;
mod hoards;
mod inherited;
mod processes;
mod sockets;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;

/// In a slot `PROBE` names a function below. On its own it does nothing.
#[test]
fn in_a_slot() {
    let Ok(name) = std::env::var("PROBE") else { return };
    let args = std::env::var("PROBE_ARGS").unwrap_or_default();
    let args: Vec<_> = args.split_whitespace().collect();
    let faults = match &*name {
        "allowed_calls" => inherited::allowed_calls(&args),
        "deep" => deep(&args),
        "hang_up" => sockets::hang_up(&args),
        "inherited" => inherited::inherited(&args),
        "refused_by_errno" => inherited::refused_by_errno(),
        "flip" => flip(&args),
        "abstract_connect" => sockets::abstract_connect(&args),
        "abstract_listen" => sockets::abstract_listen(&args),
        "hoard_children" => hoards::children(&args),
        "hoard_memfd" => hoards::memfd(&args),
        "hoard_segment" => hoards::segment(&args),
        "lease" => lease(&args),
        "lasting" => lasting(&args),
        "lasting_left" => lasting_left(&args),
        "loopback" => sockets::loopback(),
        "no_network" => sockets::no_network(&args),
        "outsiders" => processes::outsiders(&args),
        "refused_calls" => processes::refused_calls(),
        "scheduling" => processes::scheduling(),
        "unix_refused" => sockets::unix_refused(),
        "unix_works" => sockets::unix_works(),
        other => attempts::make(other, &args)
            .unwrap_or_else(|| vec![format!("there is no probe {other}")]),
    };
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Makes directories in one another, as many as it is told. From the innermost outwards: where
/// Landlock stands, each name that is made costs as much as it is deep.
fn deep(args: &[&str]) -> Vec<String> {
    fs::create_dir("d").unwrap();
    fs::write("d/leaf", "x").unwrap();
    for level in 1..args[0].parse::<u32>().unwrap() {
        let wrapped = fs::create_dir("e")
            .and_then(|()| fs::rename("d", "e/d"))
            .and_then(|()| fs::rename("e", "d"));
        if let Err(error) = wrapped {
            return vec![format!("level {level}: {error}")];
        }
    }
    Vec::new()
}

/// Takes a lease on a file and does not hear that others want it.
#[expect(unsafe_code, reason = "no library of ours knows leases")]
fn lease(args: &[&str]) -> Vec<String> {
    use std::os::fd::AsRawFd as _;
    let file = fs::File::create(args[0]).unwrap();
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    // SAFETY: takes numbers.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } < 0 {
        println!("not leased: {}", std::io::Error::last_os_error());
    }
    fs::write("leased", "").unwrap();
    loop {
        std::thread::park();
    }
}

/// Exchanges pairs of names for as long as it lives.
fn flip(names: &[&str]) -> Vec<String> {
    let mut begun = false;
    loop {
        for pair in names.chunks(2) {
            if let Err(errno) = renameat_with(CWD, pair[0], CWD, pair[1], RenameFlags::EXCHANGE) {
                return vec![format!("exchange {pair:?}: {errno}")];
            }
        }
        if !begun {
            fs::write("flipping", "").unwrap();
            begun = true;
        }
    }
}

fn key(args: &[&str]) -> libc::key_t {
    let number: u64 = args[0].parse().unwrap();
    libc::key_t::try_from(number % 1_000_000_000).unwrap() + 1
}

/// Makes what outlives its maker, if it may.
#[expect(unsafe_code, reason = "System V calls")]
fn lasting(args: &[&str]) -> Vec<String> {
    let key = key(args);
    // SAFETY: these calls take numbers.
    let made = unsafe {
        [
            libc::shmget(key, 4_096, libc::IPC_CREAT | 0o666),
            libc::semget(key, 1, libc::IPC_CREAT | 0o666),
            libc::msgget(key, libc::IPC_CREAT | 0o666),
        ]
    };
    for id in made {
        println!("made {id}");
    }
    let _ = fs::write(format!("/dev/shm/slot-{key}"), "x");
    Vec::new()
}

#[expect(unsafe_code, reason = "System V calls")]
fn lasting_left(args: &[&str]) -> Vec<String> {
    let key = key(args);
    // SAFETY: these calls take numbers.
    let found = unsafe { [libc::shmget(key, 0, 0), libc::semget(key, 0, 0), libc::msgget(key, 0)] };
    let mut faults: Vec<_> = found
        .iter()
        .filter(|id| **id >= 0)
        .map(|id| format!("System V object {id} is left"))
        .collect();
    if fs::exists(format!("/dev/shm/slot-{key}")).unwrap_or(false) {
        faults.push("a file in /dev/shm is left".to_owned());
    }
    faults
}
