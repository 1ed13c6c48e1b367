//! `slotmux serve`.

use crate::run::{Place, Serving, command, slotmux};
use rustix::process::Signal;
use std::net::TcpListener;

#[test]
fn every_fault_of_the_settings_is_listed_with_its_line() {
    let place = Place::new();
    let text = "listen = 1\ncolour = 'red'\n\n[[profile]]\nslots = 0\nnetwork = 'maybe'\n";
    let file = place.write("s.toml", text);
    let ran = slotmux(["serve".as_ref(), "--config".as_ref(), file.as_os_str()]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let faults: Vec<&str> =
        ran.stderr.lines().filter_map(|line| line.split_once("s.toml:").map(|it| it.1)).collect();
    let starts = ["1: `listen`", "2: unknown key `colour`", "5: `slots`", "6: `network`"];
    assert_eq!(faults.len(), starts.len(), "{}", ran.stderr);
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault}");
    }
    assert!(ran.stderr.starts_with("error: the settings have 4 faults\n"), "{}", ran.stderr);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    let file = place.write("s.toml", "pool = 'file'\n[[profile]]\nname = 'x'\nslots = 1\ncontainers_max = 1\nheadroom_slots = 1\n");
    let ran = command(["serve", "--print-settings", "--slots", "3", "--config"])
        .arg(file)
        .env("SLOTMUX_SLOTS", "2")
        .env("SLOTMUX_CONTAINERS_MAX", "2")
        .env("SLOTMUX_TOKEN", "secret")
        .output()
        .unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    for line in ["pool = \"file\"", "slots = 3", "containers_max = 2", "headroom_slots = 1"] {
        assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
    }
    assert!(!printed.contains("secret"));
    let again = place.write("printed.toml", &printed);
    let ran = slotmux([
        "serve".as_ref(),
        "--print-settings".as_ref(),
        "--config".as_ref(),
        again.as_os_str(),
    ]);
    assert_eq!(ran.stdout.replace("# token: none", "# token: set, not shown"), printed);
}

#[test]
fn a_public_address_without_a_token_is_refused() {
    let ran = slotmux(["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("SLOTMUX_TOKEN"), "{ran:?}");
}

#[test]
fn a_port_in_use_is_told_and_costs_nothing() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = command(["serve", "--listen", &address, "--state-dir"]);
    let ran = command.arg(place.path("state")).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert!(stderr.contains(&format!("listen on {address}")), "{stderr}");
    assert!(stderr.contains("hint: another program listens there"), "{stderr}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_state_directory_that_cannot_be_made_is_told() {
    let place = Place::new();
    let file = place.write("file", "");
    let ran = command(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(file.join("state"))
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert!(stderr.contains("make the state directory"), "{stderr}");
}

#[test]
fn told_to_stop_it_takes_its_containers_with_it() {
    let place = Place::new();
    let mut pool = Serving::start(&place, &["--slots", "1", "--containers-max", "1"]);
    let acquired = pool.slotmux("acquire", &[]);
    assert_eq!(acquired.code, Some(0), "{acquired:?}");
    assert_eq!(place.processes().len(), 2, "{:?}", place.processes());
    pool.signal(Signal::TERM);
    assert!(pool.child.wait().unwrap().success());
    assert_eq!(place.processes(), [""; 0]);
    let containers = place.path("state/default/containers");
    assert_eq!(std::fs::read_dir(containers).unwrap().count(), 0);
}

#[test]
fn a_pool_that_was_killed_finds_its_leases_again() {
    let place = Place::new();
    let mut pool = Serving::start(&place, &["--slots", "1", "--containers-max", "1"]);
    let lease = pool.slotmux("acquire", &[]).stdout.trim().to_owned();
    let wrote = pool.slotmux("exec", &[&lease, "--", "echo kept > file"]);
    assert_eq!(wrote.code, Some(0), "{wrote:?}");
    pool.signal(Signal::KILL);
    pool.child.wait().unwrap();

    let pool = Serving::start(&place, &["--slots", "1", "--containers-max", "1"]);
    let read = pool.slotmux("exec", &[&lease, "--timeout-s", "10", "--", "cat file"]);
    assert_eq!((read.code, read.stdout.trim()), (Some(0), "kept"), "{read:?}");
}

#[test]
fn containers_are_kept_for_the_next_start_when_that_is_asked_for() {
    let place = Place::new();
    let mut pool =
        Serving::start(&place, &["--slots", "1", "--containers-max", "1", "--keep-containers"]);
    let lease = pool.slotmux("acquire", &[]).stdout.trim().to_owned();
    pool.signal(Signal::TERM);
    assert!(pool.child.wait().unwrap().success());
    let pool = Serving::start(&place, &["--slots", "1", "--containers-max", "1"]);
    let released = pool.slotmux("release", &[&lease]);
    assert_eq!(released.code, Some(0), "{released:?}");
}
