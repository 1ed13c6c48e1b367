use super::*;
use std::{net::Ipv4Addr, time::UNIX_EPOCH};

fn house(cgroup: CgroupVersion) -> House {
    let bind = Ipv4Addr::LOCALHOST.into();
    House { owner: "o".to_owned(), bind, processes: 1_024, open_files: 5_000, cgroup }
}

fn environment() -> Environment {
    Environment {
        id: "sha256:1".to_owned(),
        created: 0,
        ports: Vec::new(),
        advertised: true,
        title: "t".to_owned(),
        runtime: "runc".to_owned(),
        run_as_root: false,
    }
}

fn grading(ports: &[PortPair], network: bool, cgroup: CgroupVersion) -> ContainerCreateBody {
    let run = Run::new();
    let ticket = Ticket { run: &run, role: "main", deadline: UNIX_EPOCH, ports };
    let folder = Folder::at("/jobs/1".into());
    house(cgroup).grading(&ticket, &environment(), &folder, 60, network)
}

#[test]
fn a_grading_container_has_what_inginious_gives_it_and_fewer_powers() {
    let body = grading(&[], false, CgroupVersion::V1);
    assert_eq!((body.cmd, body.user, body.tty), (None, None, Some(false)));
    assert_eq!(body.open_stdin, Some(true));
    let host = body.host_config.unwrap();
    assert_eq!((host.memory, host.memory_swap), (Some(60 << 20), Some(60 << 20)));
    assert_eq!((host.memory_swappiness, host.oom_kill_disable), (Some(0), Some(true)));
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(
        host.binds.unwrap(),
        [
            "/jobs/1/task:/task:Z",
            "/jobs/1/student:/task/student:Z",
            "/jobs/1/scripts:/task/student/scripts:Z",
            "/jobs/1/systemfiles:/task/systemfiles:Z",
            "/jobs/1/sockets:/sockets:Z",
            "/jobs/1/course/common:/course/common:ro,Z",
            "/jobs/1/course/common/student:/course/common/student:ro,Z",
        ]
    );
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(host.pids_limit, Some(1_024));
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
    assert!(host.security_opt.unwrap().contains(&"no-new-privileges".to_owned()));
    let host = grading(&[], false, CgroupVersion::V2).host_config.unwrap();
    assert_eq!((host.memory_swappiness, host.oom_kill_disable), (None, None));
}

#[test]
fn ports_and_network_put_it_on_the_bridge() {
    let host = grading(&[], true, CgroupVersion::V1).host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
    let port = PortPair { inner: 22, outer: 64_120 };
    let host = grading(&[port], false, CgroupVersion::V1).host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
    let bound = host.port_bindings.unwrap()["22/tcp"].clone().unwrap();
    assert_eq!(bound[0].host_port.as_deref(), Some("64120"));
}

#[test]
fn an_unlimited_number_of_open_files_is_no_limit_of_none() {
    assert_eq!(open_files(None, 4), 262_144);
    assert_eq!(open_files(Some(20_000), 4), 5_000);
    assert_eq!(open_files(Some(1_024), 100), 1_024);
    assert_eq!(open_files(Some(u64::MAX), 0), 1 << 20);
}
