//! Attempts of `hostile.rs` that a shell cannot make.
#![expect(unsafe_code, reason = "raw system calls are what is tried out")]

use std::{fs, io, os::fd::AsRawFd as _, process::Command};

/// `None`: there is no attempt of that name.
pub(super) fn make(name: &str, args: &[&str]) -> Option<Vec<String>> {
    Some(match name {
        "attributes" => attributes(),
        "calls" => super::calls::refused(args[0]),
        "families" => super::calls::families(args[0]),
        "identities" => identities(),
        "in_flight" => super::bombs::in_flight(),
        "layers" => layers(),
        "listen_udp" => listen_udp(),
        "locked_memory" => locked_memory(),
        "many_names" => many_names(args),
        "memfd" => super::bombs::memfd(),
        "memory" => super::bombs::memory(),
        "bomb" => super::bombs::go_off(args[0]),
        "netlink" => netlink(),
        "one_terminal" => one_terminal(),
        "own_init" => own_init(),
        "port_taken" => port_taken(args),
        "queues" => queues(args[0]),
        "seats_taken" => seats_taken(args),
        "siblings" => siblings(args[0]),
        "subreaper" => subreaper(args[0]),
        "typing" => typing(),
        "zombies" => zombies(args),
        _ => return None,
    })
}

fn fault(what: &str, done: bool) -> Option<String> {
    done.then(|| what.to_owned())
}

/// Attributes that would keep a file from being deleted, and capabilities for who runs it.
fn attributes() -> Vec<String> {
    const SET_FLAGS: libc::c_ulong = 0x4008_6602;
    const IMMUTABLE: libc::c_long = 0x10;
    const APPEND: libc::c_long = 0x20;
    let file = fs::File::create("f").unwrap();
    // Revision 2, effective, all of the first word.
    let mut capabilities = [0_u8; 20];
    capabilities[3] = 2;
    capabilities[0] = 1;
    capabilities[4..8].fill(0xff);
    let set = |name: &std::ffi::CStr, value: &[u8]| {
        // SAFETY: the name and the value outlive the call.
        unsafe {
            libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
                == 0
        }
    };
    let flags = |flags: libc::c_long| {
        // SAFETY: reads one long, which outlives the call.
        unsafe { libc::ioctl(file.as_raw_fd(), SET_FLAGS as _, &raw const flags) == 0 }
    };
    [
        fault("immutable", flags(IMMUTABLE)),
        fault("append only", flags(APPEND)),
        fault("capabilities", set(c"security.capability", &capabilities)),
        fault("trusted", set(c"trusted.slot", b"x")),
        fault("security", set(c"security.slot", b"x")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One in ten is a file, and the others are further names of it: making files takes longest.
fn many_names(args: &[&str]) -> Vec<String> {
    for number in 0..args[0].parse::<u32>().unwrap() {
        let name = |number: u32| format!("d{}/{number}", number / 1_000);
        if number % 1_000 == 0 {
            fs::create_dir(format!("d{}", number / 1_000)).unwrap();
        }
        let made = match number % 10 {
            0 => fs::File::create(name(number)).map(|_| ()),
            _ => fs::hard_link(name(number - number % 10), name(number)),
        };
        // A limit that is met on the way is an end as well.
        if made.is_err() {
            break;
        }
    }
    Vec::new()
}

/// Users and groups beside its own: root's, the neighbour's, a service's.
fn identities() -> Vec<String> {
    // SAFETY: these calls take numbers, and lists that outlive them.
    let (own, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let mut faults = Vec::new();
    for id in [0, 1, own + 1, own + 2, own - 1, 65_534] {
        // SAFETY: as above. The raw calls change this thread alone.
        let taken = unsafe {
            [
                libc::syscall(libc::SYS_setresuid, id, id, id),
                libc::syscall(libc::SYS_setuid, id),
                libc::syscall(libc::SYS_setresgid, id, id, id),
                libc::syscall(libc::SYS_setgroups, 1, &raw const id),
            ]
        };
        faults.extend(taken.iter().filter(|it| **it == 0).map(|_| format!("became {id}")));
        // SAFETY: as above.
        let files = unsafe {
            libc::syscall(libc::SYS_setfsuid, id);
            libc::syscall(libc::SYS_setfsuid, -1)
        };
        faults.extend(fault("file-system user", files != libc::c_long::from(own)));
    }
    // SAFETY: as above.
    let now = unsafe { (libc::getuid(), libc::getgid()) };
    faults.extend(fault("another identity", now != (own, group)));
    faults
}

/// The slot's init is this process's parent's parent, or near: every ancestor is tried.
fn own_init() -> Vec<String> {
    let mut faults = Vec::new();
    let status = |pid: i32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut pid = i32::try_from(std::process::id()).unwrap();
    let mut init = pid;
    // Up to where another user begins, or nothing is seen.
    for _ in 0..10 {
        let text = status(pid);
        let parent = text.lines().find_map(|it| it.strip_prefix("PPid:")?.trim().parse().ok());
        match parent {
            Some(parent) if parent > 0 => {
                init = parent;
                pid = parent;
                if status(parent).lines().any(|it| it.starts_with("Name:") && it.contains("slot")) {
                    break;
                }
            }
            _ => break,
        }
    }
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(0x40_0000), iov_len: 1 };
    // SAFETY: the buffers outlive the calls.
    let (seized, attached, read, written) = unsafe {
        (
            libc::ptrace(libc::PTRACE_SEIZE, init, 0, 0) == 0,
            libc::ptrace(libc::PTRACE_ATTACH, init, 0, 0) == 0,
            libc::process_vm_readv(init, &raw const local, 1, &raw const remote, 1, 0) > 0,
            libc::process_vm_writev(init, &raw const local, 1, &raw const remote, 1, 0) > 0,
        )
    };
    faults.extend(fault("seized", seized));
    faults.extend(fault("attached", attached));
    faults.extend(fault("read", read));
    faults.extend(fault("written", written));
    for name in ["mem", "environ", "auxv", "syscall", "stack"] {
        let content = fs::read(format!("/proc/{init}/{name}"));
        faults.extend(fault(name, content.is_ok_and(|it| !it.is_empty())));
    }
    for name in ["mem", "oom_score_adj", "comm", "coredump_filter", "clear_refs"] {
        let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{init}/{name}"));
        faults.extend(fault(&format!("{name} opened for writing"), opened.is_ok()));
    }
    for link in ["fd/0", "fd/3", "exe", "cwd", "root", "ns/mnt"] {
        let seen = fs::read_link(format!("/proc/{init}/{link}"));
        faults.extend(fault(link, seen.is_ok()));
    }
    faults
}

/// Memory that is never given back. Locked or not, it counts; that the slot is none the worse for
/// it afterwards is looked at from outside.
fn locked_memory() -> Vec<String> {
    // SAFETY: takes numbers.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    let size = 128 << 20;
    // SAFETY: a fresh mapping that nobody else knows; only locked, and not read.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if at == libc::MAP_FAILED {
            return Vec::new();
        }
        libc::mlock(at, size);
        libc::munmap(at, size);
    }
    Vec::new()
}

/// Children that are not its own but its parent's, in a session of their own.
fn siblings(mark: &str) -> Vec<String> {
    for _ in 0..3 {
        let flags = libc::CLONE_PARENT;
        // SAFETY: without CLONE_VM the child has its own copy of all memory, and only execs.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: takes nothing.
            unsafe { libc::setsid() };
            linger(mark);
        }
    }
    Vec::new()
}

/// Becomes what the machine is searched for.
fn linger(mark: &str) -> ! {
    use std::os::unix::process::CommandExt as _;
    let error = Command::new("/bin/sleep").arg(format!("3000.{mark}")).exec();
    // SAFETY: always sound.
    unsafe { libc::_exit(error.raw_os_error().unwrap_or(1)) }
}

/// A daemon that says it is the init of its descendants, and starts some that leave it.
fn subreaper(mark: &str) -> Vec<String> {
    // SAFETY: takes numbers; the child has one thread and goes on in this function.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        for _ in 0..3 {
            if libc::fork() == 0 {
                libc::setsid();
                libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
                libc::prctl(libc::PR_SET_NAME, c") Z 1 (".as_ptr());
                if libc::fork() == 0 {
                    libc::setsid();
                    if libc::fork() == 0 {
                        linger(mark);
                    }
                    libc::_exit(0);
                }
                linger(mark);
            }
        }
    }
    Vec::new()
}

fn zombies(args: &[&str]) -> Vec<String> {
    for _ in 0..args[0].parse::<u32>().unwrap() {
        // SAFETY: the child ends at once.
        unsafe {
            if libc::fork() == 0 {
                libc::_exit(0);
            }
        }
    }
    Vec::new()
}

/// A slot may put itself behind further walls; those are its own.
fn layers() -> Vec<String> {
    for _ in 0..32 {
        // SAFETY: a filter of one instruction that allows all; it outlives the call.
        unsafe {
            let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
            let program = libc::sock_fprog { len: 1, filter: (&raw const allow).cast_mut() };
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program);
            // Version 1's one right: to execute.
            let attributes = [1_u64];
            let ruleset =
                libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), 8, 0);
            libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0);
            libc::close(i32::try_from(ruleset).unwrap());
        }
    }
    Vec::new()
}

fn pty() -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx")
}

fn one_terminal() -> Vec<String> {
    match pty() {
        Ok(_) => Vec::new(),
        // On rungs that show none.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Vec::new(),
        Err(error) => vec![format!("no terminal: {error}")],
    }
}

fn typing() -> Vec<String> {
    let Ok(terminal) = pty() else { return Vec::new() };
    let mut faults = Vec::new();
    for (name, request) in [("TIOCSTI", libc::TIOCSTI), ("TIOCLINUX", libc::TIOCLINUX)] {
        // Also with bits above those that the kernel looks at.
        for request in [request, request | 1 << 32] {
            let letter = b'x';
            // SAFETY: reads one byte, which outlives the call.
            let result = unsafe {
                libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), request, &raw const letter)
            };
            let refused = io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
            faults.extend(fault(name, result == 0 || !refused));
        }
    }
    // The one that it would be of use with: the terminal of whoever started the server.
    faults.extend(fault("the server's terminal", fs::File::open("/dev/tty").is_ok()));
    faults
}

fn listen_udp() -> Vec<String> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    fs::write("port", socket.local_addr().unwrap().port().to_string()).unwrap();
    let _ = socket.recv(&mut [0]);
    Vec::new()
}

#[expect(clippy::cast_possible_truncation, reason = "sizes of a few bytes")]
fn port_taken(args: &[&str]) -> Vec<String> {
    let port: u16 = args[0].parse().unwrap();
    let mut faults = Vec::new();
    for address in [u32::from_be_bytes([127, 0, 0, 1]), 0] {
        // SAFETY: zero is a valid address; options and address outlive the calls.
        unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let one: libc::c_int = 1;
            for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
                let size = size_of_val(&one) as libc::socklen_t;
                libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const one).cast(), size);
            }
            let mut name: libc::sockaddr_in = std::mem::zeroed();
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = port.to_be();
            name.sin_addr.s_addr = address.to_be();
            let size = size_of_val(&name) as libc::socklen_t;
            let bound = libc::bind(socket, (&raw const name).cast(), size) == 0;
            faults.extend(fault("bound", bound && libc::listen(socket, 1) == 0));
            libc::close(socket);
        }
    }
    faults
}

/// Connections that say nothing, from as many processes as it takes, held while others are served.
fn seats_taken(args: &[&str]) -> Vec<String> {
    let port: u16 = args[0].parse().unwrap();
    for _ in 0..3 {
        // SAFETY: the child has one thread and goes on in this function.
        if unsafe { libc::fork() } == 0 {
            let mut held = Vec::new();
            while let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
                held.push(stream);
                if held.len() > 900 {
                    break;
                }
            }
            linger(args[1]);
        }
    }
    Vec::new()
}

/// Makes an interface, and a route to nowhere.
fn netlink() -> Vec<String> {
    const NEW_LINK: u16 = 16;
    const REQUEST_CREATE_ACK: u16 = 0x1 | 0x4 | 0x400;
    // SAFETY: the message and the buffer outlive the calls.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let socket = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE);
        if socket < 0 {
            return Vec::new();
        }
        let mut message = Vec::new();
        let kind_name = b"dummy\0\0\0";
        message.extend(0_u32.to_ne_bytes());
        message.extend(NEW_LINK.to_ne_bytes());
        message.extend(REQUEST_CREATE_ACK.to_ne_bytes());
        message.extend([0; 8]);
        // An `ifinfomsg` of zeros, and IFLA_LINKINFO with IFLA_INFO_KIND in it.
        message.extend([0; 16]);
        message.extend(16_u16.to_ne_bytes());
        message.extend(18_u16.to_ne_bytes());
        message.extend(10_u16.to_ne_bytes());
        message.extend(1_u16.to_ne_bytes());
        message.extend(kind_name);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        let sent = libc::send(socket, message.as_ptr().cast(), message.len(), 0);
        let mut answer = [0_u8; 256];
        let read = libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0);
        libc::close(socket);
        let errno = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        let refused = sent < 0 || read < 20 || errno == -libc::EPERM;
        fault(&format!("an interface was asked for: {errno}"), !refused).into_iter().collect()
    }
}

/// System V objects by keys and a POSIX queue, made in one lease and looked for in the next.
fn queues(what: &str) -> Vec<String> {
    let flags = if what == "make" { libc::IPC_CREAT | 0o666 } else { 0 };
    let open = if what == "make" { libc::O_CREAT | libc::O_RDWR } else { libc::O_RDWR };
    let mut found = Vec::new();
    for key in 770_001..770_020 {
        // SAFETY: these calls take numbers, and a name that outlives them.
        unsafe {
            found.extend(fault(
                "a segment",
                libc::shmget(key, if what == "make" { 4_096 } else { 0 }, flags) >= 0,
            ));
            found.extend(fault(
                "a semaphore",
                libc::semget(key, i32::from(what == "make"), flags) >= 0,
            ));
            found.extend(fault("a queue", libc::msgget(key, flags) >= 0));
        }
    }
    // SAFETY: as above.
    let queue = unsafe {
        libc::mq_open(c"/slot-queue".as_ptr(), open, 0o666, std::ptr::null::<libc::mq_attr>())
    };
    found.extend(fault("a POSIX queue", queue >= 0));
    if what == "make" { Vec::new() } else { found }
}
