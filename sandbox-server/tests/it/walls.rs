//! What a slot cannot reach.

use crate::{
    host::{self, mark, marked, sleeper, until},
    rung::{Rung, scenarios},
    server::{Server, Setup},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

scenarios! {
    everywhere: [
        no_descriptor_is_inherited,
        no_signal_is_ignored_or_blocked,
        the_environment_is_the_slots_own,
    ]
    behind_walls: [
        nothing_of_the_servers_environment_is_found_inside,
        there_is_no_power_and_none_to_be_gained,
        other_slots_files_cannot_be_read_or_written,
        what_belongs_to_the_server_cannot_be_read_or_written,
        the_system_cannot_be_written,
        no_process_outside_can_be_signalled_or_looked_into,
        calls_that_reach_past_the_slot_are_refused,
        unix_sockets_are_for_slots_with_a_root_of_their_own,
        a_process_schedules_itself_and_nobody_else,
    ]
    in_namespaces: [
        abstract_sockets_are_not_shared,
        only_the_slots_own_processes_and_directories_are_there,
    ]
}

async fn no_descriptor_is_inherited(rung: &'static Rung) {
    let server = Server::start(rung);
    // 3 is the directory that `ls` itself reads.
    assert_eq!(server.output(0, "ls /proc/self/fd").await, "0\n1\n2\n3");
}

async fn no_signal_is_ignored_or_blocked(rung: &'static Rung) {
    let server = Server::start(rung);
    let signals = server.output(0, "grep -E '^Sig(Ign|Blk)' /proc/self/status | cut -f2").await;
    assert_eq!(signals.lines().count(), 2, "{signals}");
    for line in signals.lines() {
        let set = u64::from_str_radix(line, 16).unwrap();
        // The classic 31; above come those that the C library keeps for itself.
        assert_eq!(set & 0x7fff_ffff, 0, "{signals}");
    }
}

async fn the_environment_is_the_slots_own(rung: &'static Rung) {
    let server =
        Server::with(rung, Setup { env: &[("LD_LIBRARY_PATH", "/x")], ..Setup::default() });
    let names = server.output(0, "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
    assert_eq!(names, "HOME LC_CTYPE LOGNAME PATH PWD SHELL SHLVL TERM TMPDIR USER _");
    let output = server.output(0, "cd \"$HOME\" && touch \"$TMPDIR/f\" && printf é | wc -m").await;
    assert_eq!(output, "1", "text is UTF-8");
}

async fn nothing_of_the_servers_environment_is_found_inside(rung: &'static Rung) {
    let (secret, token) = (format!("secret-{}", mark()), format!("token-{}", mark()));
    let env = [("SERVERS_SECRET", &*secret), ("SLOTMUX_CONTAINER_TOKEN", &*token)];
    let mut server = Server::with(rung, Setup { env: &env, ..Setup::default() });
    server.token = Some(token.clone());
    let found = server
        .output(0, "env; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n'; true")
        .await;
    assert!(found.contains("TMPDIR="), "the search finds nothing at all: {found}");
    assert!(!found.contains(&secret) && !found.contains(&token), "{found}");
    // Nor is the token where somebody with more power would look for it.
    for process in server.processes() {
        let environ = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let environ = String::from_utf8_lossy(&environ).into_owned();
        assert!(!environ.contains(&token), "{process:?}");
    }
}

async fn there_is_no_power_and_none_to_be_gained(rung: &'static Rung) {
    let server = Server::start(rung);
    let status = server.output(0, "cat /proc/self/status").await;
    let field = |name: &str| {
        let line = status.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("Groups"), "");
    assert!(!field("Uid").split_whitespace().any(|it| it == "0"), "{}", field("Uid"));
    assert!(!field("Gid").split_whitespace().any(|it| it == "0"), "{}", field("Gid"));
    // Set-uid programs are programs like any others.
    server.output(0, "cp /usr/bin/id . && chmod u+s id && [ $(./id -u) = $(id -u) ]").await;
}

async fn other_slots_files_cannot_be_read_or_written(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let command = format!(
        "echo secret > file; echo secret > $TMPDIR/file; chmod -R a+rwX . $TMPDIR
         echo $TMPDIR; sleep 3000.{mark} & "
    );
    let tmp = server.output(1, &command).await;
    let pid = sleeper(&mark).await;
    let mut dirs = vec![
        server.workspace(1).display().to_string(),
        server.workspace(1).parent().unwrap().display().to_string(),
        format!("/proc/{pid}/root/workspace"),
        format!("/proc/{pid}/root/tmp"),
        format!("/proc/{pid}/cwd"),
    ];
    if !rung.is_namespaces() {
        dirs.push(tmp);
    }
    for dir in dirs {
        let command = format!(
            "cat {dir}/file; ls {dir}; echo x > {dir}/file; touch {dir}/new; rm -rf {dir}; ln {dir}/file here"
        );
        let result = server.bash(0, &command).await;
        assert!(!result.output.contains("secret"), "{dir}: {result:?}");
    }
    let output = server.output(1, "cat file $TMPDIR/file; ls -A . $TMPDIR | sort | uniq -c").await;
    assert!(output.starts_with("secret\nsecret\n"), "{output}");
    assert!(!output.contains("new"), "{output}");
}

async fn what_belongs_to_the_server_cannot_be_read_or_written(rung: &'static Rung) {
    let server = Server::start(rung);
    let dir = server.dir.path();
    let writable = dir.join("writable");
    fs::create_dir(&writable).unwrap();
    fs::set_permissions(&writable, Permissions::from_mode(0o777)).unwrap();
    fs::write(writable.join("file"), "secret").unwrap();
    fs::set_permissions(writable.join("file"), Permissions::from_mode(0o666)).unwrap();
    let dir = dir.display();
    let command = format!(
        "cat {dir}/log {dir}/ready {dir}/writable/file; ls {dir} {dir}/data {dir}/data/slots {dir}/data/trash
         echo x > {dir}/writable/file; touch {dir}/new {dir}/writable/new {dir}/data/new {dir}/data/slots/new
         rm -rf {dir}/log {dir}/data/trash {dir}/writable; true"
    );
    let result = server.bash(0, &command).await;
    let stdout = result.output.split("[stderr]").next().unwrap();
    assert!(!stdout.contains("secret") && !stdout.contains("authority"), "{result:?}");
    assert_eq!(fs::read_to_string(writable.join("file")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&writable).unwrap().count(), 1);
    assert!(server.log().contains("serving"));
}

async fn the_system_cannot_be_written(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let command = format!(
        "for dir in / /usr /usr/bin /etc /opt /var /home /root /dev /proc /sys /run; do
           (echo x > $dir/slot-{mark}) 2>/dev/null && echo written: $dir
         done
         for file in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger \\
             /dev/kmsg /etc/passwd /etc/ld.so.cache /proc/sys/kernel/hostname; do
           (echo x >> $file) 2>/dev/null && echo written: $file
         done
         (head -c 1 /dev/mem /dev/kmsg /proc/kcore /dev/sda /dev/vda) 2>/dev/null | head -c 1 | wc -c"
    );
    assert_eq!(server.output(0, &command).await, "0");
    for dir in ["/usr", "/etc", "/opt", "/var", "/home", "/root", "/run", "/dev"] {
        assert!(!Path::new(dir).join(format!("slot-{mark}")).exists(), "{dir}");
    }
}

async fn no_process_outside_can_be_signalled_or_looked_into(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let mark = mark();
    server.output(1, &format!("sleep 3000.{mark} &")).await;
    server.output(0, &format!("(setsid sleep 3000.{mark} &)")).await;
    until("both are there", || marked(&mark).len() == 2).await;
    until("both have come to their inits", || {
        let server = server.pid().as_raw_nonzero().get();
        marked(&mark).iter().all(|it| host::parent(*it).and_then(host::parent) == Some(server))
    })
    .await;
    let inits: Vec<_> = marked(&mark).into_iter().filter_map(host::parent).collect();
    let other_slots = marked(&mark).into_iter().find(|it| {
        // Whose workspace is its working directory.
        fs::read_link(format!("/proc/{it}/cwd")).is_ok_and(|it| it.ends_with("slot_1/workspace"))
            || host::parent(*it) == inits.last().copied()
    });
    let mut pids: Vec<_> = server.processes().into_iter().map(|it| it.pid).collect();
    // The slot's own process may be looked into.
    let own: Vec<_> = marked(&mark).into_iter().filter(|it| Some(*it) != other_slots).collect();
    pids.retain(|it| !own.contains(it));
    pids.push(i32::try_from(std::process::id()).unwrap());
    // In a namespace these are nobody's; the init is 1 there.
    let pids: Vec<_> = pids.into_iter().map(|it| it.to_string()).collect();
    let same_user = if rung.isolation == Some("landlock") { "same-user " } else { "" };
    let args = format!("{same_user}{}", pids.join(" "));
    let result = server.probe(0, "outsiders", &args).await;
    assert!(result.success, "{result:?}");
    let init = if rung.is_namespaces() { "1".to_owned() } else { "$PPID".to_owned() };
    let command = format!("kill -9 {init}; kill -TERM {init}; kill -STOP {init}; echo alive");
    let result = server.bash(0, &command).await;
    assert!(result.output.contains("alive"), "{result:?}");
    assert_eq!(server.output(0, "echo works").await, "works");
    assert_eq!(marked(&mark).len(), 2);
}

async fn calls_that_reach_past_the_slot_are_refused(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let result = server.probe(0, "refused_calls", "").await;
    assert!(result.success, "{result:?}");
    for command in ["unshare -U true", "unshare -m true", "mount -t tmpfs x .", "chroot . true"] {
        let result = server.bash(0, command).await;
        assert!(!result.success, "{command}: {result:?}");
    }
}

async fn unix_sockets_are_for_slots_with_a_root_of_their_own(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let probe = if rung.is_namespaces() { "unix_works" } else { "unix_refused" };
    let result = server.probe(0, probe, "").await;
    assert!(result.success, "{result:?}");
    let mut off = crate::http::bash(0, &server.probe_command(probe, ""));
    off["args"]["allow_network"] = false.into();
    assert!(server.reset(0).await.success);
    let result = server.call(off).await;
    assert!(result.success, "without network: {result:?}");
}

async fn a_process_schedules_itself_and_nobody_else(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    assert_eq!(server.output(0, "nice -n 5 echo works").await, "works");
    if !rung.is_namespaces() {
        let result = server.probe(0, "scheduling", "").await;
        assert!(result.success, "{result:?}");
    }
}

async fn abstract_sockets_are_not_shared(rung: &'static Rung) {
    if !host::scopes_abstract_sockets() {
        println!("skipped: the kernel does not scope abstract sockets");
        return;
    }
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let mark = mark();
    let listen = server.probe_command("abstract_listen", &mark);
    assert!(server.bash(1, &format!("{listen} > log 2>&1 &")).await.success);
    until("it listens", || server.workspace(1).join("listening").exists()).await;
    let result = server.probe(0, "abstract_connect", &mark).await;
    assert!(result.success, "{result:?}");
}

async fn only_the_slots_own_processes_and_directories_are_there(rung: &'static Rung) {
    let server = Server::start(rung);
    assert_eq!(server.output(0, "hostname; whoami; id -u; id -g").await, "slot\nslot\n1000\n1000");
    let pids = server.output(0, "echo /proc/[0-9]*").await;
    assert_eq!(pids.split(' ').count(), 2, "{pids}");
    let system = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix"];
    let own =
        ["dev", "proc", "tmp", "workspace", "run", "var", "home", "root", ".passwd", ".group"];
    for name in server.output(0, "ls -A /").await.lines() {
        assert!(system.contains(&name) || own.contains(&name), "{name} of the host is seen");
    }
    for empty in ["/tmp", "/dev/shm", "/run", "/home", "/root"] {
        assert_eq!(server.output(0, &format!("ls -A {empty}")).await, "", "{empty}");
    }
    let mounts = server.output(0, "cat /proc/self/mountinfo").await;
    assert!(!mounts.contains("cgroup") && !mounts.contains("sysfs"), "{mounts}");
}
