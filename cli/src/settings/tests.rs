use super::*;
use slotmux_protocol::{Isolation, Network};

fn faults(text: &str) -> Vec<String> {
    let file = Some(PathBuf::from("s.toml"));
    let faults = Settings::merge(text, Flags::default()).unwrap_err();
    let text = SettingsFaults { file, faults }.to_string();
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_file_is_read_whole() {
    let text = r#"
pool = "training"
listen = "localhost:9000"
journal = "off"
keep_containers = true
dead_after_s = 2.5

[[profile]]
name = "small"
slots = 4
network = "on"

[[profile]]
name = "large"
memory_bytes_max = 0x8000_0000
isolation_min = "namespaces"
"#;
    let settings = Settings::merge(text, Flags::default()).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(settings.at_stop, AtStop::KeepContainers);
    assert_eq!(settings.pool.name, "training");
    assert_eq!(settings.pool.journal, JournalMode::Off);
    assert_eq!(settings.pool.dead_after, Duration::from_millis(2_500));
    let [small, large] = settings.pool.profiles.as_slice() else { panic!("not two") };
    assert_eq!((small.slots_per_container, small.network), (4, Network::On));
    assert_eq!(large.slots_per_container, DEFAULT_SLOTS);
    assert_eq!(large.slot_limits.memory_bytes_max, 1 << 31);
    assert_eq!(large.isolation_min, Isolation::Namespaces);
}

#[test]
fn flags_win_over_the_file() {
    let pool = PoolOptions { pool: Some("flag".to_owned()), ..PoolOptions::default() };
    let profile = ProfileOptions { slots: Some(3), ..ProfileOptions::default() };
    let text = "pool = 'file'\nstate_dir = '/s'\n[[profile]]\nname = 'a'\nslots = 5\n";
    let flags = Flags { pool, profile, ..Flags::default() };
    let settings = Settings::merge(text, flags).unwrap();
    assert_eq!(settings.pool.name, "flag");
    assert_eq!(settings.state_dir, Path::new("/s"));
    assert_eq!(settings.pool.journal, JournalMode::File("/s/flag.journal".into()));
    assert_eq!(settings.pool.profiles[0].slots_per_container, 3);
    assert_eq!(settings.pool.profiles[0].name.as_str(), "a");
}

#[test]
fn every_fault_is_listed_with_its_line() {
    let text = r#"listen = 8080
colour = "red"
heartbeat_s = "often"
pool = "no spaces"
waiting_max = 0

[[profile]]
name = "small"
slot = 4
slots = 0
network = "maybe"

[[profile]]
name = "small"
containers_min = 9
lease_ttl_s = -1
isolation_min = "total"
processes_max = 1.5
root = "all"
"#;
    let faults = faults(text);
    let expected = [
        "s.toml:1: `listen`: a string, not 8080",
        "s.toml:2: unknown key `colour`; the keys are pool, listen,",
        "s.toml:3: `heartbeat_s`: a number of seconds, not \"often\"",
        "s.toml:4: `pool` is 1 to 64 letters",
        "s.toml:5: `waiting_max` is between 1 and",
        "s.toml:9: unknown key `slot`; the keys are name, slots,",
        "s.toml:10: `slots` is between 1 and 4096",
        "s.toml:11: `network`: the network is on or off, not `maybe`",
        "s.toml:14: `name` `small` is taken",
        "s.toml:15: `containers_min` is at most `containers_max` (2)",
        "s.toml:16: `lease_ttl_s`: seconds are between 0 and 2592000 (30 days), not -1",
        "s.toml:17: `isolation_min`: isolation is one of",
        "s.toml:18: `processes_max`: a whole number from 0 to 4294967295, not 1.5",
        "s.toml:19: `root`: the root is minimal or image, not `all`",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\n{expected}");
    }
}

#[test]
fn faults_of_syntax_do_not_hide_the_others() {
    let faults = faults("pool = \nslots = 4\nlisten = 'x'\nlisten = 'y'\n");
    let lines: Vec<_> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["s.toml:1", "s.toml:2", "s.toml:3", "s.toml:4"], "{faults:#?}");
}

#[test]
fn a_public_address_needs_a_token() {
    assert_eq!(faults("\nlisten = '0.0.0.0:80'\n").len(), 1);
    assert!(faults("listen = '[::ffff:10.0.0.1]:80'\n")[0].contains("SLOTMUX_TOKEN"));
    assert_eq!(faults("listen = '0.0.0.0:80'\ntoken = ''\n").len(), 1);
    for fine in ["listen = '[::1]:80'", "listen = '127.9.9.9:80'", "listen='0.0.0.0:1'\ntoken='t'"]
    {
        assert!(Settings::merge(fine, Flags::default()).is_ok(), "{fine}");
    }
}

#[test]
fn what_is_printed_means_the_same() {
    let text = "pool = 'p'\njournal = '/j \"x\"'\nstop_grace_s = 0.25\n[[profile]]\nname = 'ü'\nslots = 3\n";
    let read = |text: &str| Settings::merge(text, Flags::default()).unwrap();
    let settings = read(text);
    let again = read(&settings.to_string());
    assert_eq!(again.pool, settings.pool);
    assert_eq!(again.to_string(), settings.to_string());
}

#[test]
fn a_token_is_not_printed() {
    let settings = Settings::merge("token = 'secret'", Flags::default());
    assert!(!settings.unwrap().to_string().contains("secret"));
}

#[test]
fn containers_of_an_engine_are_read_and_printed_whole() {
    let text = r#"
backend = "docker"
sandbox_server = "/opt/server"
docker_host = "tcp://engine:2375"
docker_certificates = "/etc/docker/certs"
docker_config_dir = "/etc/docker/config"
docker_owner = "me"
docker_inject = "bind"
docker_reach = "published"
docker_bind = "0.0.0.0"
docker_ports = "20000-20009"
docker_machine = "engine"

[[profile]]
name = "plain"
image = "debian:12"

[[profile]]
name = "all"
image = "team/swe:local"
build = "/images/swe"
dockerfile = "Dockerfile.slim"
build_args = ["PYTHON=3.12"]
pull = "never"
walls = "namespaces"
user = "1000:100"
container_memory_bytes_max = 0x4000_0000
container_cpu_millis_max = 1500
container_processes_max = 500
container_shm_bytes = 67108864
data_tmpfs_bytes = 1048576
container_network = "sandboxes"
runtime = "runsc"
read_only = true
tmpfs = ["/run:size=1m,mode=755", "/var/run"]
security_opt = ["label=disable"]
cap_add = ["SYS_PTRACE"]
cap_drop = ["NET_RAW"]
"#;
    let settings = Settings::merge(text, Flags::default()).unwrap();
    let again = Settings::merge(&settings.to_string(), Flags::default()).unwrap();
    let BackendSettings::Docker(choice) = &settings.backend else { panic!("not docker") };
    let BackendSettings::Docker(printed) = &again.backend else { panic!("not docker") };
    assert_eq!(format!("{choice:?}"), format!("{printed:?}"));
    assert_eq!(choice.settings.profiles.len(), 2);
    let all = &choice.settings.profiles[&ProfileName::new("all").unwrap()];
    assert_eq!(all.tmpfs["/run"], "size=1m,mode=755");
    assert_eq!((all.memory_bytes_max, all.user.unwrap().gid), (1 << 30, 100));
    let read = settings.to_string();
    for line in text.lines().filter(|line| !line.contains("0x")) {
        assert!(read.contains(line.trim()), "{line} is not in\n{read}");
    }
}

#[test]
fn faults_of_containers_stand_where_they_were_written() {
    let found = faults(
        r#"backend = "docker"
docker_owner = "a b"
docker_ports = "9-1"
docker_bind = "127.0.0.1"
[[profile]]
name = "none"
image = ""
[[profile]]
name = "wrong"
dockerfile = "x"
container_network = "host"
container_memory_bytes_max = 5
walls = "namespaces"
user = 0
tmpfs = [1]
"#,
    );
    let expected = [
        "s.toml:2: `docker_owner` is 1 to 64 letters",
        "s.toml:3: `docker_ports`: `9-1` is not a range of ports",
        "s.toml:4: `docker_bind` is of published ports",
        "s.toml:7: `image` is not empty",
        "s.toml:10: `dockerfile` is of an image that is built",
        "s.toml:11: `container_network` is a network in which",
        "s.toml:12: `container_memory_bytes_max` is 0 or between",
        "s.toml:14: `user` is not root",
        "s.toml:15: `tmpfs`: a string, not 1",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (fault, expected) in found.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\n{expected}");
    }
}

#[test]
fn an_image_without_an_engine_is_a_fault() {
    let found = faults("docker_owner = 'x'\n[[profile]]\nimage = 'debian:12'\n");
    let places: Vec<_> = found.iter().map(|it| it.split_once('`').unwrap().0).collect();
    assert_eq!(places, ["s.toml:1: ", "s.toml:3: "], "{found:#?}");
    assert!(found[1].contains("set `backend` to docker"), "{found:#?}");
}
