//! `/proc/net/tcp` and `tcp6`: the same question, answered by reading every connection there is.

use super::{Ends, Found, words};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
};

const LISTEN: &str = "0A";

pub(super) fn find(ends: Ends) -> io::Result<Option<Found>> {
    if ends.peer.is_ipv4()
        && let Some(found) = find_in("/proc/net/tcp", &spelt(ends.peer), &spelt(ends.local))?
    {
        return Ok(Some(found));
    }
    let (peer, local) = (spelt(in_ipv6(ends.peer)), spelt(in_ipv6(ends.local)));
    match find_in("/proc/net/tcp6", &peer, &local) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

fn find_in(table: &str, peer: &str, local: &str) -> io::Result<Option<Found>> {
    for line in BufReader::new(File::open(table)?).lines() {
        if let Some(found) = read(&line?, peer, local) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// `sl local remote state queues timer retransmits uid timeout inode`.
fn read(line: &str, peer: &str, local: &str) -> Option<Found> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if fields.next()? != peer || fields.next()? != local || fields.next()? == LISTEN {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Found { uid, inode })
}

fn in_ipv6(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Words of an address in the machine's own order, in hexadecimal.
fn spelt(address: SocketAddr) -> String {
    let count = if address.is_ipv4() { 1 } else { 4 };
    let words = words(address.ip());
    let mut text = String::new();
    for word in &words[..count] {
        // Writing to a string cannot fail.
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_for_its_own_addresses_only() {
        let line = "   3: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  \
                    1000        0 987654 1 0000000000000000 20 4 30 10 -1";
        let found = Some(Found { uid: 1_000, inode: 987_654 });
        assert_eq!(read(line, "0100007F:D431", "0100007F:1F90"), found);
        assert_eq!(read(line, "0100007F:1F90", "0100007F:D431"), None);
        assert_eq!(read(&line.replace(" 01 ", " 0A "), "0100007F:D431", "0100007F:1F90"), None);
        assert_eq!(read("sl local_address", "a", "b"), None);
    }
}
