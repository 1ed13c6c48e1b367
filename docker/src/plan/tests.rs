use super::*;
use crate::settings::Ports;
use slotmux_backend::conformance::spec;
use std::time::UNIX_EPOCH;

fn body(settings: &DockerSettings) -> ContainerCreateBody {
    body_that(false, settings)
}

fn body_that(opens: bool, settings: &DockerSettings) -> ContainerCreateBody {
    let user = User { uid: 20_001, gid: 20_002 };
    let choice = Choice { user, opens, inject: settings.inject };
    Plan { settings, spec: &spec("-rf"), token: "secret", choice, now: UNIX_EPOCH }.body()
}

fn settings() -> DockerSettings {
    DockerSettings::new("/opt/server".into(), "debian:12")
}

#[test]
fn the_token_is_in_the_environment_and_nowhere_else() {
    let mut body = body(&settings());
    assert_eq!(body.env.take().unwrap(), ["SLOTMUX_CONTAINER_TOKEN=secret"]);
    assert!(!format!("{body:?}").contains("secret"));
}

#[test]
fn a_name_with_a_dash_is_no_option() {
    let arguments = body(&settings()).cmd.unwrap();
    assert!(arguments.contains(&"--container=-rf".to_owned()), "{arguments:?}");
}

#[test]
fn a_user_that_was_drawn_is_one_that_root_becomes() {
    let mut settings = settings();
    let drawn = body(&settings);
    assert_eq!(drawn.user.as_deref(), Some("0:0"));
    assert!(drawn.cmd.unwrap().contains(&"--become=20001:20002".to_owned()));
    settings.default.user = Some(User { uid: 20_001, gid: 20_002 });
    let named = body(&settings);
    assert_eq!(named.user.as_deref(), Some("20001:20002"));
    assert!(!named.cmd.unwrap().iter().any(|it| it.starts_with("--become")));
}

#[test]
fn an_ordinary_container_keeps_what_the_engine_covers() {
    let host = body(&settings()).host_config.unwrap();
    assert_eq!((host.masked_paths, host.readonly_paths), (None, None));
    assert_eq!(host.security_opt.unwrap(), [""; 0]);
    assert_eq!((host.memory, host.nano_cpus, host.pids_limit), (None, None, None));
}

#[test]
fn namespaces_open_what_they_need_and_no_more() {
    let host = body_that(true, &settings()).host_config.unwrap();
    assert_eq!((host.masked_paths, host.readonly_paths), (Some(vec![]), Some(vec![])));
    let options = host.security_opt.unwrap();
    assert!(options[0].starts_with("seccomp={"), "{options:?}");
    assert_eq!(options[1..], ["apparmor=unconfined"]);
    assert_eq!((host.privileged, host.cap_add), (None, Some(vec![])));
}

#[test]
fn limits_and_places_are_as_the_profile_says() {
    let mut settings = settings();
    settings.inject = Inject::Bind;
    let bind = [127, 0, 0, 1].into();
    settings.reach = Reach::Published(Ports { bind, range: Some(40_000..=40_009), host: None });
    settings.default.memory_bytes_max = 1 << 30;
    settings.default.cpu_millis_max = 1_500;
    settings.default.processes_max = 100;
    settings.default.read_only = true;
    settings.default.data = Data::Tmpfs { bytes_max: 5 };
    settings.default.runtime = Some("runsc".to_owned());
    let host = body(&settings).host_config.unwrap();
    assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_500_000_000), Some(100)));
    assert_eq!((host.readonly_rootfs, host.runtime.as_deref()), (Some(true), Some("runsc")));
    let tmpfs = host.tmpfs.unwrap();
    assert_eq!(tmpfs["/slotmux/data"], "exec,mode=711,uid=20001,gid=20002,size=5");
    let ports = host.port_bindings.unwrap();
    let binding = &ports["8080/tcp"].as_ref().unwrap()[0];
    assert_eq!(binding.host_port.as_deref(), Some("40000-40009"));
    let program = &host.mounts.unwrap()[1];
    assert_eq!(program.source.as_deref(), Some("/opt/server"));
    assert_eq!(program.read_only, Some(true));
}
