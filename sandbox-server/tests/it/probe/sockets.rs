//! Sockets, tried out from within.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
};

fn address(args: &[&str]) -> SocketAddr {
    SocketAddr::from_abstract_name(format!("slot-{}", args[0])).unwrap()
}

/// Waits for somebody who must not come.
pub(super) fn abstract_listen(args: &[&str]) -> Vec<String> {
    let listener = UnixListener::bind_addr(&address(args)).unwrap();
    fs::write("listening", "").unwrap();
    loop {
        let _ = listener.accept();
    }
}

pub(super) fn abstract_connect(args: &[&str]) -> Vec<String> {
    match UnixStream::connect_addr(&address(args)) {
        Ok(_) => vec!["another slot's abstract socket was reached".to_owned()],
        Err(_) => Vec::new(),
    }
}

pub(super) fn no_network(args: &[&str]) -> Vec<String> {
    let port: u16 = args[0].parse().unwrap();
    let mut faults = Vec::new();
    for host in ["127.0.0.1", "::1", "192.0.2.1"] {
        if TcpStream::connect((host, port)).is_ok() {
            faults.push(format!("{host}:{port} was reached"));
        }
    }
    if UdpSocket::bind("0.0.0.0:0").and_then(|it| it.send_to(b"x", "192.0.2.1:53")).is_ok() {
        faults.push("a datagram was sent".to_owned());
    }
    faults
}

pub(super) fn loopback() -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    if text == "hello" { Vec::new() } else { vec![format!("it said {text:?}")] }
}

/// No Unix socket that could reach a path; pairs, which reach one another, work.
#[expect(unsafe_code, reason = "raw system calls are what is tried out")]
pub(super) fn unix_refused() -> Vec<String> {
    let mut faults = Vec::new();
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        // SAFETY: takes numbers.
        let socket = unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) };
        if socket >= 0 {
            faults.push(format!("a Unix socket of kind {kind} was made"));
        }
    }
    if let Err(error) = pair() {
        faults.push(format!("a pair does not work: {error}"));
    }
    // One of a pair of datagram sockets may send to any path.
    if let Ok((one, _other)) = UnixDatagram::pair() {
        let sent = one.send_to(b"x", "none-such");
        faults.push(format!("a pair of datagram sockets was made: {sent:?}"));
    }
    faults
}

pub(super) fn unix_works() -> Vec<String> {
    let by_path = || {
        let listener = UnixListener::bind("socket")?;
        let mut client = UnixStream::connect("socket")?;
        client.write_all(b"hello")?;
        drop(client);
        let mut text = String::new();
        listener.accept()?.0.read_to_string(&mut text)?;
        UnixDatagram::unbound().map(|_| text)
    };
    let mut faults = Vec::new();
    match by_path() {
        Ok(text) if text == "hello" => {}
        other => faults.push(format!("by its path: {other:?}")),
    }
    if let Err(error) = pair() {
        faults.push(format!("a pair does not work: {error}"));
    }
    faults
}

fn pair() -> std::io::Result<()> {
    let (mut one, mut other) = UnixStream::pair()?;
    one.write_all(b"x")?;
    other.read_exact(&mut [0])
}

/// Asks the server for something in many ways, and is gone before it can be looked at.
#[expect(unsafe_code, reason = "the standard library cannot close with a reset")]
pub(super) fn hang_up(args: &[&str]) -> Vec<String> {
    let (port, request) = (args[0].parse::<u16>().unwrap(), args[1..].join(" "));
    let request = request.replace("\\r\\n", "\r\n");
    for number in 0..200 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let _ = stream.write_all(request.as_bytes());
        if number % 2 == 0 {
            use std::os::fd::AsRawFd as _;
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            let length = libc::socklen_t::try_from(size_of_val(&reset)).unwrap();
            let (socket, option) = (stream.as_raw_fd(), &raw const reset);
            // SAFETY: the option outlives the call.
            unsafe {
                libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, option.cast(), length);
            }
        }
    }
    Vec::new()
}
