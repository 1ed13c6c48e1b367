//! What a slot has from whoever started the server: nothing but limits.

use crate::{
    host::mark,
    rung::{Rung, scenarios},
    server::{Server, Setup},
};
use std::{io, os::unix::process::CommandExt as _, process::Command};

scenarios! {
    everywhere: [
        nothing_of_the_servers_state_is_inherited,
    ]
    behind_walls: [
        each_call_is_refused_with_its_own_error,
        what_programs_use_is_not_refused,
        no_capability_is_left_in_any_set,
    ]
    in_namespaces: [
        programs_that_people_use_work,
    ]
}

/// A server that was started as oddly as can be, by somebody with powers and secrets.
fn odd(rung: &Rung, key: &str) -> impl Fn(&mut Command) + use<> {
    let key = std::ffi::CString::new(key).unwrap();
    let root = rung.user == crate::rung::User::Root;
    move |command: &mut Command| {
        let key = key.clone();
        #[expect(unsafe_code, reason = "the state of a process before its exec")]
        // SAFETY: the closure makes system calls only, on what it owns.
        unsafe {
            command.pre_exec(move || become_odd(&key, root));
        }
    }
}

#[expect(unsafe_code, reason = "the state of a process before its exec")]
fn become_odd(key: &std::ffi::CStr, root: bool) -> io::Result<()> {
    // SAFETY: numbers, and pointers to what outlives the calls; no handler is installed.
    unsafe {
        libc::umask(0);
        libc::personality(0x0004_0000);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0);
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        libc::signal(libc::SIGRTMIN() + 3, libc::SIG_IGN);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::dup2(1, 77);
        libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<libc::c_char>());
        let kind = c"user".as_ptr();
        if libc::syscall(libc::SYS_add_key, kind, key.as_ptr(), key.as_ptr(), 4, -3) < 0 {
            return Err(io::Error::last_os_error());
        }
        if root {
            libc::setgroups(1, &raw const GROUP);
            libc::setpriority(libc::PRIO_PROCESS, 0, -5);
            for resource in [libc::RLIMIT_RTPRIO, libc::RLIMIT_NICE, libc::RLIMIT_MEMLOCK] {
                let limit = libc::rlimit { rlim_cur: 32 << 20, rlim_max: 32 << 20 };
                libc::setrlimit(resource, &raw const limit);
            }
            libc::syscall(libc::SYS_ioprio_set, 1, 0, 1 << 13 | 4);
        }
    }
    Ok(())
}

static GROUP: libc::gid_t = 54_321;

async fn nothing_of_the_servers_state_is_inherited(rung: &'static Rung) {
    let key = format!("key-{}", mark());
    let setup = Setup { probe: true, ..Setup::default() };
    let server = match Server::start_after(rung, setup, odd(rung, &key)) {
        Ok(server) => server,
        Err(failed) if failed.log.is_empty() => {
            return println!("skipped: no keys can be made here");
        }
        Err(failed) => panic!("{failed:?}"),
    };
    // What was ignored or blocked, by every number; descriptors but the standard ones and that of
    // the directory; where it runs, and that it leads a process group without a terminal.
    let output = server
        .output(
            0,
            "grep -E '^Sig(Ign|Blk)' /proc/self/status | cut -f2; ls /proc/self/fd | tr '\\n' ' ';
             pwd; umask; [ $$ = $(cut -d' ' -f5 /proc/$$/stat) ] && cut -d' ' -f7 /proc/$$/stat",
        )
        .await;
    let workspace = if rung.is_namespaces() {
        "/workspace".to_owned()
    } else {
        server.workspace(0).display().to_string()
    };
    let none = "0000000000000000";
    assert_eq!(output, format!("{none}\n{none}\n0 1 2 3 {workspace}\n0022\n0"));
    let result = server.probe(0, "inherited", &key).await;
    assert!(result.success, "{result:?}");
}

async fn each_call_is_refused_with_its_own_error(rung: &'static Rung) {
    for args in [&[][..], &["--network", "off"]] {
        let server = Server::with(rung, Setup { probe: true, args, ..Setup::default() });
        let result = server.probe(0, "refused_by_errno", "").await;
        assert!(result.success, "{args:?}: {result:?}");
    }
}

async fn what_programs_use_is_not_refused(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let result = server.probe(0, "allowed_calls", "network").await;
    assert!(result.success, "{result:?}");
}

async fn no_capability_is_left_in_any_set(rung: &'static Rung) {
    let server = Server::start(rung);
    let sets = server.output(0, "grep '^Cap' /proc/self/status").await;
    let set = |name: &str| {
        let line = sets.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(":\t"));
        u64::from_str_radix(line.unwrap(), 16).unwrap()
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(name), 0, "{sets}");
    }
    // Without the power to, an ordinary user's server cannot empty the last one. It gives nothing:
    // `no_new_privs` is set.
    let kept = match rung.isolation {
        Some("namespaces") => 0,
        // What the init needs to become the slot's user, and to end what it started.
        Some("uid") => (1 << 5) | (1 << 6) | (1 << 7),
        _ => u64::MAX,
    };
    assert_eq!(set("CapBnd") & !kept, 0, "{sets}");
    assert_eq!(server.output(0, "grep -c '^NoNewPrivs:.1' /proc/self/status").await, "1");
}

/// Each where it is there.
async fn programs_that_people_use_work(rung: &'static Rung) {
    let server = Server::start(rung);
    for (program, command, output) in [
        ("strace", "strace -qq -e trace=none -o trace true && echo works", "works"),
        (
            "gdb",
            "gdb -q -batch -ex 'break main' -ex run -ex 'print argc' ./a.out 2>&1 | grep -c '= 1'",
            "1",
        ),
        ("git", "git init -q r && cd r && echo x > f && git add f && git status -s", "A  f"),
        ("node", "node -e 'require(\"fs\").readdir(\".\", () => console.log(6 * 7))'", "42"),
        (
            "python3",
            "python3 -c 'import multiprocessing as m; print(sum(m.Pool(2).map(abs, [-1, -2])))'",
            "3",
        ),
        ("make", "printf 'a:\\n\\techo made\\n' > Makefile && make -s", "made"),
        ("perl", "perl -e 'fork // die; wait; print \"p\"' | head -c1", "p"),
    ] {
        // A program to look into, compiled in the slot where there is a compiler.
        let compile = "echo 'int main(int argc, char **argv) { return argc - 1; }' > a.c && \
                       gcc -g a.c && ./a.out";
        if program == "gdb"
            && !server.bash(0, &format!("command -v gcc && {compile}")).await.success
        {
            println!("skipped: gdb: nothing to look into");
            continue;
        }
        if !server.bash(0, &format!("command -v {program} && {program} --version")).await.success {
            println!("skipped: {program} is not in a slot");
            continue;
        }
        let result = server.bash(0, command).await;
        assert!(result.success && result.output.ends_with(output), "{program}: {result:?}");
    }
}
