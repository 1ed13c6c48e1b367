//! The whole image as the slots' root in a container without the power to mount: the slots are its
//! root, each with what it has changed, and none of its powers.

use super::{Given, ROOT_SHIPPED, UNCONFINED, container::DEBIAN, started};
use crate::{
    docker::container::{Container, Failed},
    hostile::Target,
    http::{call, read_file, write_file},
};
use serde_json::{Value, json};

pub(super) const ROOT: [&str; 2] = ["--root", "image"];

/// `None`: there is no engine.
async fn served(given: &Given, more: &[&str]) -> Option<(Container, Target)> {
    let args: Vec<_> = ROOT.iter().chain(more).copied().collect();
    let container = started(given, DEBIAN, &args).await?;
    let target = container.target(given.name).await;
    Some((container, target))
}

async fn health(target: &Target) -> Value {
    let answer = target.http.get(format!("http://{}/health", target.authority)).send().await;
    answer.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn every_slot_has_the_image_for_itself_and_a_reset_gives_it_back() {
    let Some((container, target)) = served(&ROOT_SHIPPED, &[]).await else { return };
    let health = health(&target).await;
    assert_eq!(health["image"], json!({ "by": "parts", "changes": "disk" }), "{health}");
    assert_eq!(health["limits_by"]["processes"], "supervision");
    let look = "ls -d /testbed /opt/tool /root/.rc /srv/own /usr/share/base-files /etc/pam.d /top \
                2> /dev/null; true";
    let before = target.output(0, look).await.unwrap();
    let change = "mkdir /testbed && echo mine > /testbed/file && echo 1 > /root/.rc && echo 1 > /top
        mkdir -p /opt/tool /srv/own && echo 'echo ran' > /usr/bin/tool && chmod 755 /usr/bin/tool && tool
        chown 1000:1000 /testbed/file /etc/hostname && stat -c %u:%g /testbed/file /etc/hostname
        rm -r /usr/share/base-files /etc/pam.d; mkdir /etc/pam.d && ls -A /etc/pam.d
        echo temporary > /tmp/file; ln /usr/bin/env /usr/bin/again && stat -c %h /usr/bin/again
        id -u; pwd";
    let said = target.output(0, change).await.unwrap();
    assert_eq!(said, "ran\n1000:1000\n1000:1000\n2\n0\n/workspace");
    let other = "mkdir /testbed && echo other > /testbed/file; cat /testbed/file; ls /tmp";
    assert_eq!(target.output(1, other).await.unwrap(), "other");
    assert_eq!(target.output(0, "cat /testbed/file; tool").await.unwrap(), "mine\nran");
    assert_eq!(container.exec(look), before, "the container itself is what it was");
    assert_eq!(container.exec("stat -c %u /etc/hostname; ls /usr/bin/tool 2>&1 | wc -w"), "0\n9");
    target.reset(0).await.unwrap();
    assert_eq!(target.output(0, look).await.unwrap(), before);
    assert_eq!(target.output(1, "cat /testbed/file").await.unwrap(), "other");
    container.stop();
}

#[tokio::test]
async fn the_slots_root_has_powers_over_its_files_and_no_others() {
    let Some((container, target)) = served(&ROOT_SHIPPED, &[]).await else { return };
    let powers = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'";
    let powers = target.output(0, powers).await.unwrap();
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid.
    let [own, none] = ["00000000000000fb", "0000000000000000"];
    let expected = format!(
        "CapInh:{none}\nCapPrm:{own}\nCapEff:{own}\nCapBnd:{own}\nCapAmb:{none}\n\
         NoNewPrivs:1\nSeccomp:2"
    );
    assert_eq!(powers, expected);
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'id -u; \
                touch /usr/x 2> /dev/null || grep CapEff /proc/self/status | cut -f2'";
    assert_eq!(target.output(0, user).await.unwrap(), format!("1000\n{none}"));
    let archive =
        "tar cf - --owner 1234 -C /etc hostname | tar xf - -C /tmp && stat -c %u /tmp/hostname";
    assert_eq!(target.output(0, archive).await.unwrap(), "1234");
    let own_limits = "cat /proc/sys/user/max_user_namespaces /proc/sys/user/max_inotify_instances";
    assert_eq!(target.output(0, own_limits).await.unwrap(), "0\n16");
    let tries = "for file in /dev/null /dev/zero /dev/urandom /dev/tty; do
           chmod 000 $file 2> /dev/null && echo ESCAPED mode $file
           chown 1000 $file 2> /dev/null && echo ESCAPED owner $file
           touch -d 2001-01-01 $file 2> /dev/null && echo ESCAPED times $file
           rm -f $file 2> /dev/null && echo ESCAPED removed $file
         done
         for file in /proc/1/oom_score_adj /proc/1/comm /proc/1/autogroup /proc/1/coredump_filter; do
           (exec 3>> $file) 2> /dev/null && echo ESCAPED $file; done
         for file in $(find /proc -maxdepth 1 -type f -perm /222) $(find /proc/sys /proc/irq /proc/bus \
             /proc/fs /proc/driver /proc/tty /proc/pressure -type f -perm /222 2> /dev/null); do
           [ -f $file ] || continue; (exec 3>> $file) 2> /dev/null && echo ESCAPED $file; done
         for file in /proc/kcore /proc/slabinfo /proc/kpageflags /proc/kmsg /proc/timer_list /proc/keys; do
           [ \"$(head -c 1 $file 2> /dev/null | wc -c)\" = 0 ] || echo ESCAPED $file; done
         for file in /proc/1/environ /proc/1/maps /proc/1/root /proc/1/cwd /proc/1/fd/3 /proc/1/ns/mnt; do
           readlink $file > /dev/null 2>&1 && echo ESCAPED $file; cat $file 2> /dev/null | grep -q . && echo ESCAPED $file
         done
         mknod /tmp/disk b 254 0 2> /dev/null && echo ESCAPED; mknod /usr/null c 1 3 2> /dev/null && echo ESCAPED
         ls /sys | grep . && echo ESCAPED; ls -A /data 2> /dev/null | grep . && echo ESCAPED
         find / -xdev -name .lock -path '*data*' 2> /dev/null | grep . && echo ESCAPED
         kill -9 1; kill -STOP 1; (: < /proc/1/mem) 2> /dev/null && echo ESCAPED; echo TRIED";
    assert_eq!(target.output(0, tries).await.unwrap(), "TRIED");
    let devices = container.exec("stat -c '%a %u' /dev/null /dev/zero /dev/urandom /dev/tty");
    assert_eq!(devices.lines().filter(|it| *it == "666 0").count(), 4, "{devices}");
    assert_eq!(target.output(1, "echo > /dev/null && echo works").await.unwrap(), "works");
    container.stop();
}

#[tokio::test]
async fn more_processes_than_it_may_have_end_a_call_of_the_container_s_root() {
    let more = ["--processes-max", "64"];
    let Some((container, target)) = served(&ROOT_SHIPPED, &more).await else { return };
    // More than it may have, and fewer than its namespace has numbers for.
    let many = "for i in $(seq 120); do sleep 300 & done; sleep 15; echo nobody looked";
    let ended = target.bash(0, many).await.unwrap();
    assert_eq!(ended.metadata["ended"], "pids", "{ended:?}");
    // The one tries again when it is refused, and is ended; the other gives up.
    for as_whom in ["bash", "setpriv --reuid 1000 --regid 1000 --clear-groups sh"] {
        let bomb = format!("{as_whom} -c 'while :; do sleep 300 & done'");
        let ended = target.bash(0, &bomb).await.unwrap();
        assert_eq!(ended.metadata["ended"], "pids", "{as_whom}: {ended:?}");
        assert_eq!(ended.metadata["caused_by"], "policy", "{ended:?}");
        target.reset(0).await.unwrap();
        assert_eq!(target.output(0, "set -- /proc/[0-9]*; echo $#").await.unwrap(), "2");
    }
    let some = "for i in $(seq 40); do sleep 300 & done; echo begun";
    assert_eq!(target.output(1, some).await.unwrap(), "begun");
    container.stop();
}

#[tokio::test]
async fn forks_and_snapshots_have_the_image_as_it_was_changed() {
    let Some((container, target)) = served(&ROOT_SHIPPED, &[]).await else { return };
    let prepare =
        "mkdir /usr/lib/pkg /testbed; echo prepared > /testbed/f; rm -r /usr/share/base-files
                   chown 1000 /testbed/f /usr; rm /etc/hostname; echo kept > kept";
    target.output(0, prepare).await.unwrap();
    fork(&target, 0, 1).await;
    let look = "cat /testbed/f kept; stat -c %u /testbed/f kept /usr; ls -d /usr/lib/pkg /usr/share/base-files 2>&1 | wc -l
                ls /usr/share/base-files 2> /dev/null | wc -l; id -u";
    for slot in [0, 1] {
        let seen = target.output(slot, look).await.unwrap();
        assert_eq!(seen, "prepared\nkept\n1000\n0\n1000\n2\n0\n0", "slot_{slot}");
    }
    target.output(1, "echo own >> /testbed/f; rmdir /usr/lib/pkg").await.unwrap();
    assert_eq!(
        target.output(0, "cat /testbed/f; ls -d /usr/lib/pkg").await.unwrap(),
        "prepared\n/usr/lib/pkg"
    );
    fork(&target, 1, 0).await;
    assert_eq!(
        target.output(0, "cat /testbed/f; ls /usr/lib | grep -c '^pkg$'; true").await.unwrap(),
        "prepared\nown\n0"
    );
    let (status, saved) = target.post("/v1/slots/slot_0/snapshot", Vec::new()).await.unwrap();
    assert_eq!(status, 200, "{saved}");
    target.reset(0).await.unwrap();
    assert_eq!(target.output(0, "ls -A; ls -d /testbed 2> /dev/null; true").await.unwrap(), "");
    let body = json!({ "snapshot_id": saved["snapshot_id"] }).to_string().into_bytes();
    let (status, restored) = target.post("/v1/slots/slot_0/restore", body).await.unwrap();
    assert_eq!(status, 200, "{restored}");
    assert_eq!(target.output(0, "cat kept; stat -c %u kept").await.unwrap(), "kept\n0");
    container.stop();
}

#[tokio::test]
async fn file_tools_shells_and_terminals_work_in_it() {
    let Some((container, target)) = served(&ROOT_SHIPPED, &[]).await else { return };
    let written = target.call(write_file(0, "/opt/tool/config", "of the slot")).await.unwrap();
    assert!(written.success, "{written:?}");
    assert_eq!(
        target.output(0, "cat /opt/tool/config; echo; stat -c %u /opt/tool").await.unwrap(),
        "of the slot\n0"
    );
    assert!(!target.call(read_file(1, "/opt/tool/config")).await.unwrap().success);
    for path in ["/proc/sys/kernel/hostname", "/proc/1/environ", "/data/.lock", "/dev/zero"] {
        let read = target.call(read_file(0, path)).await.unwrap();
        assert!(!read.success, "{path}: {read:?}");
    }
    let stateful = |command: &str| call(0, "bash_stateful", json!({ "command": command }));
    target.call(stateful("cd /usr/lib; MINE=here")).await.unwrap();
    let kept = target.call(stateful("echo $MINE; pwd")).await.unwrap();
    assert_eq!(kept.output, "here\n/usr/lib", "{kept:?}");
    for args in [
        json!({ "action": "start" }),
        json!({ "action": "send_keys", "keys": ["tty; id -u", "Enter"], "wait": true }),
    ] {
        let body = json!({ "tool": "terminal", "args": args }).to_string().into_bytes();
        let (status, told) = target.post("/v1/slots/slot_0/execute", body).await.unwrap();
        assert!(status == 200 && told["success"] == true, "{told}");
    }
    let body = json!({ "tool": "terminal", "args": { "action": "capture" } }).to_string();
    let (_, screen) = target.post("/v1/slots/slot_0/execute", body.into_bytes()).await.unwrap();
    let text = screen["output"].as_str().unwrap_or_default();
    assert!(text.contains("\n/dev/pts/0\n0\n"), "{screen}");
    container.stop();
}

async fn fork(target: &Target, from: u16, to: u16) {
    let body = json!({ "to": [format!("slot_{to}")], "stop": true }).to_string();
    let path = format!("/v1/slots/slot_{from}/fork");
    let (status, answer) = target.post(&path, body.into_bytes()).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer["slots"][0].get("problem").is_none(), "{answer}");
}

#[tokio::test]
async fn what_is_mounted_in_the_container_is_neither_shown_nor_in_the_way() {
    const MOUNTED: Given = Given {
        name: "a container with mounts in its directories",
        args: &[
            "--volume",
            "/data",
            "--volume",
            "/var/lib/service",
            "--volume",
            "/usr/share/service/deep",
            "--tmpfs",
            "/opt",
            "--security-opt",
            super::SHIPPED,
            "--security-opt",
            "apparmor=unconfined",
            "--security-opt",
            "systempaths=unconfined",
        ],
        rung: "namespaces",
    };
    let Some((container, target)) = served(&MOUNTED, &[]).await else { return };
    container.exec("for dir in /var/lib/service /usr/share/service/deep /opt; do echo secret > $dir/secret; done");
    let look = "ls -A /var/lib/service /usr/share/service/deep /opt /data 2> /dev/null; ls /usr/share /var/lib | wc -l";
    let seen = target.output(0, look).await.unwrap();
    assert!(!seen.contains("secret"), "{seen}");
    let all = container.exec("ls /usr/share /var/lib | wc -l");
    assert_eq!(seen.lines().last(), all.lines().last(), "{seen}");
    let write = "for dir in /var/lib/service /usr/share/service /usr/share/service/deep /opt /usr/share/base-files \
                 /var/lib/dpkg /usr/lib; do mkdir -p $dir/own && echo x > $dir/own/file || echo not $dir; done";
    assert_eq!(target.output(0, write).await.unwrap(), "");
    assert_eq!(
        container.exec("ls -d /usr/lib/own /opt/own /var/lib/*/own 2> /dev/null | wc -l"),
        "0"
    );
    target.reset(0).await.unwrap();
    assert_eq!(
        target
            .output(0, "ls -d /usr/lib/own /opt/own /var/lib/*/own 2> /dev/null | wc -l")
            .await
            .unwrap(),
        "0"
    );
    container.stop();
}

#[tokio::test]
async fn without_a_volume_changes_are_kept_in_memory() {
    let given = Given { args: &ROOT_SHIPPED.args[2..], ..ROOT_SHIPPED };
    let Some((container, target)) = served(&given, &[]).await else { return };
    assert_eq!(health(&target).await["image"], json!({ "by": "parts", "changes": "memory" }));
    let change = "rm -r /usr/share/base-files && mkdir /usr/share/base-files && ls -A /usr/share/base-files; ls -A /data 2> /dev/null; df / | tail -1 | cut -d' ' -f1";
    assert_eq!(target.output(0, change).await.unwrap(), "slot");
    target.reset(0).await.unwrap();
    assert_ne!(target.output(0, "ls -A /usr/share/base-files").await.unwrap(), "");
    container.stop();
}

#[tokio::test]
async fn networks_are_kept_from_the_containers_root_too() {
    for network in ["off", "on"] {
        let more = ["--network", network];
        let Some((container, target)) = served(&ROOT_SHIPPED, &more).await else { return };
        let knock = "exec 3<> /dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && head -c 200 <&3";
        let knocked = target.bash(0, knock).await.unwrap();
        assert!(!knocked.output.contains("200 OK"), "{network}: {knocked:?}");
        // It may become any user of the image, and is itself all the same.
        let other = format!("setpriv --reuid 1000 --regid 1000 --clear-groups bash -c \"{knock}\"");
        let knocked = target.bash(0, &other).await.unwrap();
        assert!(!knocked.output.contains("200 OK"), "{network}: {knocked:?}");
        let id = "setpriv --reuid 1000 --regid 1000 --clear-groups id -u";
        assert_eq!(target.output(0, id).await.unwrap(), "1000");
        let interfaces = target.output(0, "cat /proc/net/dev | grep -c eth0; true").await.unwrap();
        assert_eq!(interfaces, if network == "on" { "1" } else { "0" });
        let raw =
            target.output(0, "(exec 3> /dev/udp/127.0.0.1/9) && echo loopback").await.unwrap();
        assert_eq!(raw, "loopback");
        container.stop();
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_the_root_is_refused_with_each_step() {
    let Ok(()) = super::engine() else { return println!("skipped: no Docker engine") };
    for (given, says) in [(&UNCONFINED, "in parts, with its changes on disk: it needs root")] {
        let failed = Container::run(given.args, DEBIAN, &ROOT).await.err();
        let Some(Failed::Server(log)) = failed else { panic!("{}: {failed:?}", given.name) };
        assert!(log.contains("the image cannot be the slots' root"), "{log}");
        assert!(log.contains(says), "{log}");
    }
}
