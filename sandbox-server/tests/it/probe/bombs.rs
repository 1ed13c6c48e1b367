//! Taking as much as there is of one thing, and holding it. Writes `full` when it has all it got.
#![expect(unsafe_code, reason = "raw system calls are what is tried out")]

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::net::UnixStream,
};

/// No bomb is larger, whatever there are limits.
const MANY: usize = 200_000;

pub(super) fn go_off(what: &str) -> Vec<String> {
    let got = match what {
        // The limit is each process's, so there are more of them.
        "files" => in_processes(20, || take(|| File::open("/dev/null").ok())),
        "pipes" => in_processes(8, || take(pipe)),
        "terminals" => in_processes(20, || {
            take(|| File::options().read(true).write(true).open("/dev/ptmx").ok())
        }),
        "events" => in_processes(8, || take(|| numbered(event))),
        "watches" => in_processes(4, watches),
        "threads" => take(|| {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(|| {
                    loop {
                        std::thread::park();
                    }
                })
                .ok()
        }),
        "timers" => take(timer),
        "signals" => take(signal),
        "locks" => locks(),
        "mappings" => mappings(),
        other => return vec![format!("there is no bomb {other}")],
    };
    println!("{what}: {got}");
    fs::write("full", "").unwrap_or_else(|_| make_room());
    loop {
        std::thread::park();
    }
}

/// Without a free descriptor the file is made by its name alone.
fn make_room() {
    // SAFETY: the path is a C string.
    unsafe { libc::mknod(c"full".as_ptr(), libc::S_IFREG | 0o600, 0) };
}

fn take<T>(mut one: impl FnMut() -> Option<T>) -> usize {
    let mut held = Vec::new();
    while held.len() < MANY
        && let Some(it) = one()
    {
        held.push(it);
    }
    let count = held.len();
    // Held for as long as this process is.
    std::mem::forget(held);
    count
}

/// The children hold what they have taken; they are told apart from nobody.
fn in_processes(count: usize, bomb: impl Fn() -> usize) -> usize {
    let mut pipes = [0; 2];
    // SAFETY: the array outlives the call.
    unsafe { libc::pipe(pipes.as_mut_ptr()) };
    let mut begun = 0;
    for _ in 0..count {
        // SAFETY: the child has one thread, and ends here.
        match unsafe { libc::fork() } {
            0 => {
                let _ = bomb();
                let done = b'x';
                // SAFETY: writes one byte, which outlives the call.
                unsafe { libc::write(pipes[1], (&raw const done).cast(), 1) };
                loop {
                    std::thread::park();
                }
            }
            pid if pid > 0 => begun += 1,
            _ => break,
        }
    }
    for _ in 0..begun {
        let mut done = 0_u8;
        // SAFETY: reads one byte, which outlives the call.
        unsafe { libc::read(pipes[0], (&raw mut done).cast(), 1) };
    }
    begun
}

fn event() -> libc::c_int {
    // SAFETY: takes numbers.
    unsafe { libc::eventfd(0, 0) }
}

fn watcher() -> libc::c_int {
    // SAFETY: takes a number.
    unsafe { libc::inotify_init1(0) }
}

fn nameless() -> libc::c_int {
    // SAFETY: the name is a C string.
    unsafe { libc::memfd_create(c"x".as_ptr(), 0) }
}

fn numbered(make: impl Fn() -> libc::c_int) -> Option<OwnedFd> {
    let fd = make();
    // SAFETY: the kernel has just made this descriptor for us.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pipe() -> Option<[OwnedFd; 2]> {
    let mut ends = [0; 2];
    // SAFETY: the array outlives the call; the descriptors are new.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) < 0 {
            return None;
        }
        libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 1 << 20);
        let filling = vec![0_u8; 65_536];
        // Filled: only then is there memory behind it. A few suffice to meet the limit.
        libc::write(ends[1], filling.as_ptr().cast(), filling.len());
        Some(ends.map(|it| OwnedFd::from_raw_fd(it)))
    }
}

fn watches() -> usize {
    let made = take(|| numbered(watcher));
    // SAFETY: takes numbers, and paths that outlive the calls.
    unsafe {
        let epoll = libc::epoll_create1(0);
        let inotify = libc::inotify_init1(0);
        for number in 0..20_000 {
            let name =
                std::ffi::CString::new(format!("/proc/self/fdinfo/{}", number % 1_000)).unwrap();
            libc::inotify_add_watch(inotify, name.as_ptr(), libc::IN_ALL_EVENTS);
            let mut event = libc::epoll_event { events: 1, u64: 0 };
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, number % 1_000, &raw mut event);
        }
    }
    made
}

fn timer() -> Option<()> {
    let mut timer = std::ptr::null_mut();
    let often = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 },
        it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 },
    };
    // SAFETY: zero is a valid event; all outlive the calls. The signal is ignored.
    unsafe {
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGUSR1;
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) < 0 {
            return None;
        }
        (libc::timer_settime(timer, 0, &raw const often, std::ptr::null_mut()) == 0).then_some(())
    }
}

/// Real-time signals queue up, and are counted for the user.
fn signal() -> Option<()> {
    // SAFETY: the set is initialised before use; the others take numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_signo = libc::SIGRTMIN();
        info.si_code = libc::SI_QUEUE;
        // To this thread alone: others of this process would take it.
        let (own, thread) = (libc::getpid(), libc::gettid());
        let queued =
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, own, thread, info.si_signo, &raw const info);
        (queued == 0).then_some(())
    }
}

fn locks() -> usize {
    let file = File::create("locked").unwrap();
    let mut at = 0;
    take(|| {
        at += 2;
        // Each is looked for among all the others.
        if at > 10_000 {
            return None;
        }
        // SAFETY: zero is a valid lock, which outlives the call.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = 1;
            lock.l_start = at;
            lock.l_len = 1;
            (libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) == 0).then_some(())
        }
    })
}

fn mappings() -> usize {
    let protections = [libc::PROT_READ, libc::PROT_NONE];
    let mut number = 0;
    take(|| {
        number += 1;
        // SAFETY: a fresh mapping that is never touched.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4_096,
                protections[number % 2],
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        (at != libc::MAP_FAILED).then_some(())
    })
}

/// Descriptors in messages that nobody takes out.
pub(super) fn in_flight() -> Vec<String> {
    let sent = take(|| {
        let (one, other) = UnixStream::pair().ok()?;
        let sent = rustix_send(&one);
        sent.then_some((one, other))
    });
    println!("in flight: {sent}");
    // Held, without the descriptors, for as long as the neighbour is looked at.
    // SAFETY: the child has one thread, and stays.
    if unsafe { libc::fork() } == 0 {
        loop {
            std::thread::park();
        }
    }
    Vec::new()
}

fn rustix_send(socket: &UnixStream) -> bool {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::{io::IoSlice, mem::MaybeUninit, os::fd::AsFd as _};
    let fds = [socket.as_fd(); 200];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds))
        && sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::DONTWAIT).is_ok()
}

/// Up to three times what a slot may have; ended before that.
pub(super) fn memfd() -> Vec<String> {
    let fd = numbered(nameless);
    let mut file = File::from(fd.unwrap());
    let block = vec![1; 1 << 20];
    for _ in 0..768 {
        if file.write_all(&block).is_err() {
            break;
        }
    }
    vec!["it was all taken".to_owned()]
}

pub(super) fn memory() -> Vec<String> {
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(vec![1_u8; 64 << 20]);
    }
    vec![format!("{} were taken", held.len())]
}
