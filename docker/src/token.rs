//! What is drawn for each container: its token, and a user where it needs one of its own.

use crate::settings::User;
use std::{
    fmt::Write,
    fs::File,
    io::{self, Read},
};

/// Drawn users lie in here: above those that images have, below where the ids of an engine end
/// that maps users.
const USERS_FROM: u32 = 20_000;
const USERS: u32 = 40_000;

/// 32 random bytes, in hexadecimal.
pub(crate) fn draw_token() -> io::Result<String> {
    random::<32>().map(hexadecimal)
}

/// That nobody else has.
pub(crate) fn draw_name() -> io::Result<String> {
    random::<8>().map(hexadecimal)
}

fn hexadecimal<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The kernel counts the processes of a user, whichever containers they are in: each has its own.
pub(crate) fn draw_user() -> io::Result<User> {
    let id = USERS_FROM + u32::from_le_bytes(random()?) % USERS;
    Ok(User { uid: id, gid: id })
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
