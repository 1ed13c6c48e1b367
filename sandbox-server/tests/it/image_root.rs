//! The whole image as a slot's root: the slot is root in it, and what it changes goes with it.

use crate::{
    forks::Forks as _,
    rung::{NAMESPACES_AS_ROOT, NAMESPACES_AS_USER, UID_AS_ROOT},
    server::{Server, Setup},
};
use serde_json::json;
use std::{fs, path::Path};

const IMAGE: [&str; 2] = ["--root", "image"];

/// `None`: not here.
async fn server() -> Option<Server> {
    server_with(&[]).await
}

async fn server_with(more: &[&str]) -> Option<Server> {
    if !NAMESPACES_AS_ROOT.is_offered().await {
        return None;
    }
    let args: Vec<_> = IMAGE.iter().chain(more).copied().collect();
    let server = Server::with(&NAMESPACES_AS_ROOT, Setup { args: &args, ..Setup::default() });
    assert_eq!(server.get("/health").await["root"], "image");
    Some(server)
}

#[tokio::test]
async fn a_slot_is_root_in_its_image_and_its_changes_go_with_it() {
    let Some(server) = server().await else { return };
    assert_eq!(server.output(0, "id -u; id -un; pwd; ls -A").await, "0\nroot\n/workspace");
    let mark = format!("slotmux-{}", crate::host::mark());
    let changed = server
        .output(
            0,
            &format!(
                "mkdir -p /usr/lib/{mark}/pkg && echo 'echo ran' > /usr/bin/{mark} && \
                 chmod +x /usr/bin/{mark} && touch /etc/{mark} /opt/{mark} /{mark} && \
                 mv /usr/bin/{mark} /usr/local/bin/ && {mark}; \
                 stat -c %u:%g /usr /usr/lib /etc/passwd /usr/lib/{mark} | sort -u; \
                 rm /etc/hostname && rm -r /usr/share/doc; ls /usr/share/doc 2>&1 | wc -l"
            ),
        )
        .await;
    assert_eq!(changed, "ran\n0:0\n1");
    for path in ["/usr/lib", "/usr/local/bin", "/etc", "/opt", "/"] {
        assert!(!Path::new(path).join(&mark).exists(), "{path} of the machine was written to");
    }
    let seen = format!("ls -d /usr/lib/{mark} /etc/{mark} /{mark} 2> /dev/null | wc -l");
    assert_eq!(server.output(0, &seen).await, "3");
    assert_eq!(server.output(1, &seen).await, "0");
    assert!(server.reset(0).await.success);
    assert_eq!(server.output(0, &seen).await, "0");
    assert_eq!(server.output(0, "ls -d /etc/hostname").await, "/etc/hostname");
}

#[tokio::test]
async fn what_is_not_of_the_image_is_not_seen_in_it() {
    let Some(server) = server().await else { return };
    let home = server.dir.path().display();
    let data = server.data_dir();
    fs::write(server.dir.path().join("secret"), "of the server").unwrap();
    server.output(1, "echo other > /workspace/file; echo other > /usr/of-slot-1").await;
    for (what, command) in [
        ("the server's files", format!("ls -A {home} {}", data.display())),
        ("other slots", "ls /run/slotmux /usr/of-slot-1".to_owned()),
        ("the machine's devices", "ls /dev/vda /dev/sda /dev/kmsg /dev/mem".to_owned()),
        ("the machine's kernel", "ls -A /sys /sys/fs/cgroup /sys/kernel".to_owned()),
        ("the machine's temporary files", "ls -A /tmp /run /dev/shm".to_owned()),
    ] {
        let look = format!("{command} 2> /dev/null | grep -v -e : -e '^$'; true");
        assert_eq!(server.output(0, &look).await, "", "{what}");
    }
    let pids = server.output(0, "ls /proc | grep -c '^[0-9]'").await;
    assert!(pids.trim().parse::<u32>().unwrap() <= 6, "{pids}");
    let others = server.output(0, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(!others.contains("data-dir"), "{others}");
    for command in [
        "mount -t tmpfs none /mnt",
        "umount /tmp",
        "mknod /dev/block b 254 0",
        "chroot / true",
        "cat /proc/1/environ",
        "ls -l /proc/1/fd/3",
        "echo 1 > /proc/sys/kernel/panic",
        "kill -9 1 && sleep 1 && ls /none-such",
    ] {
        let tried = server.bash(0, &format!("{command} 2> /dev/null")).await;
        assert!(!tried.success, "{command}: {tried:?}");
    }
    assert_eq!(server.output(0, "echo lives").await, "lives");
}

#[tokio::test]
async fn the_servers_directory_is_covered_where_it_lies_in_the_image() {
    if !NAMESPACES_AS_ROOT.is_offered().await {
        return;
    }
    // Not below /tmp, which is another one in a slot anyhow.
    let home = tempfile::Builder::new().prefix("slotmux-it-").tempdir_in("/var").unwrap();
    fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let server = home.path().join("server");
    fs::hard_link(env!("CARGO_BIN_EXE_slotmux-sandbox-server"), &server)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_slotmux-sandbox-server"), &server).map(drop))
        .unwrap();
    let setup = Setup { args: &IMAGE, slots: 3, ..Setup::default() };
    let server = Server::start_in(home, &NAMESPACES_AS_ROOT, setup);
    let server = server.unwrap_or_else(|failed| panic!("{failed:?}"));
    let data = server.data_dir();
    server.output(2, "touch own").await;
    let inside = data.display();
    let look = format!("ls -A {inside}; touch {inside}/x; ls -A {inside}/slots");
    let seen = server.bash(0, &format!("({look}) 2> /dev/null; exit 0")).await;
    assert_eq!(seen.output, "");
    let (above, left) = (server.dir.path().display(), "log\nready\nserver");
    assert_eq!(server.output(0, &format!("mv {above} /var/moved; ls /var/moved")).await, left);
    // What other servers of this machine have in the disks of containers is not this one's.
    let find = "find /var -path /var/lib -prune -o '(' -name own -o -name .cgroups ')' -print \
                2> /dev/null; true";
    assert_eq!(server.output(0, find).await, "");
    // There the same tree is put together anew.
    server.fork(0, &[1]).await;
    assert_eq!(server.output(1, &format!("ls /var/moved; {find}")).await, left);
}

#[tokio::test]
async fn file_tools_reach_the_slots_own_image_and_no_other() {
    let Some(server) = server().await else { return };
    assert!(server.write(0, "/opt/tool/config", "of the slot").await.success);
    assert_eq!(server.output(0, "cat /opt/tool/config").await, "of the slot");
    server.output(0, "echo temporary > /tmp/file; ln -s /etc/none /opt/dangling").await;
    assert_eq!(server.read(0, "/tmp/file").await.output, "temporary\n");
    assert!(!server.read(1, "/opt/tool/config").await.success);
    assert!(!server.read(1, "/tmp/file").await.success);
    assert!(!Path::new("/opt/tool").exists());
    // A link of the slot leads within the slot.
    let outside = server.dir.path().join("outside");
    fs::write(&outside, "of the machine").unwrap();
    server.output(0, &format!("ln -s {} link; ln -s / all", outside.display())).await;
    for path in ["link", "all/etc/passwd", outside.to_str().unwrap(), "../../etc/shadow"] {
        let read = server.read(0, path).await;
        assert!(!read.output.contains("of the machine"), "{path}: {read:?}");
    }
}

#[tokio::test]
async fn a_fork_has_the_image_of_its_source_too() {
    let Some(server) = server().await else { return };
    server.output(0, "mkdir /usr/lib/installed; echo prepared > repo; rm /etc/hostname").await;
    server.fork(0, &[1]).await;
    for slot in [0, 1] {
        let seen = "cat repo; ls -d /usr/lib/installed; ls /etc/hostname 2>&1 | wc -w; id -u";
        let seen = server.output(slot, seen).await;
        assert!(seen.starts_with("prepared\n/usr/lib/installed\n"), "slot_{slot}: {seen}");
        assert!(seen.ends_with("\n0"), "{seen}");
    }
    server.output(1, "rmdir /usr/lib/installed; touch /usr/lib/own").await;
    assert_eq!(server.output(0, "ls -d /usr/lib/installed").await, "/usr/lib/installed");
    server.fork(1, &[0]).await;
    assert_eq!(
        server.output(0, "ls -d /usr/lib/installed /usr/lib/own 2> /dev/null; true").await,
        "/usr/lib/own"
    );
    let saved = server.snapshot(0).await;
    assert!(server.reset(0).await.success);
    assert_eq!(server.restore(0, &saved["snapshot_id"]).await.0, 200);
    assert_eq!(server.output(0, "cat repo; stat -c %u repo").await, "prepared\n0");
    for slot in [0, 1] {
        assert!(server.reset(slot).await.success);
    }
    assert_eq!(server.layers(), 0);
}

#[tokio::test]
async fn an_image_that_cannot_be_the_root_is_refused_at_the_start() {
    for rung in [&UID_AS_ROOT, &NAMESPACES_AS_USER] {
        if !rung.is_offered().await {
            continue;
        }
        let failed = Server::try_start(rung, Setup { args: &IMAGE, ..Setup::default() });
        let log = failed.err().map(|it| it.log).unwrap_or_default();
        assert!(log.contains("the image cannot be the slots' root"), "{}: {log}", rung.name);
        assert!(log.contains("hint: --root minimal"), "{}: {log}", rung.name);
    }
}

#[tokio::test]
async fn in_a_small_root_the_images_secrets_stay_its_own() {
    if !NAMESPACES_AS_ROOT.is_offered().await {
        return;
    }
    let server = Server::start(&NAMESPACES_AS_ROOT);
    let health = server.get("/health").await;
    assert_eq!(health["root"], json!("minimal"));
    assert!(!server.bash(0, "cat /etc/shadow").await.success);
    assert!(!server.bash(0, "touch /usr/lib/x").await.success);
    assert_eq!(server.output(0, "id -u").await, "1000");
}
