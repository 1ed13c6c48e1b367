//! Waits for `ready.json`, which a sandbox-server writes when its slots answer.

use serde::Deserialize;
use slotmux_backend::Address;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

const FIRST_LOOK: Duration = Duration::from_millis(2);
const LOOKS_APART_MAX: Duration = Duration::from_millis(50);

/// More than any address has.
const BYTES_MAX: u64 = 4_096;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    #[error("read `ready.json`")]
    Read(#[from] io::Error),
    #[error("`ready.json` is damaged")]
    Damaged(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Ready {
    authority: String,
}

/// Where the container answers, once it does.
pub(crate) async fn address(path: &Path, token: &str) -> Result<Address, ReadyError> {
    let mut apart = FIRST_LOOK;
    loop {
        if let Some(address) = look(path, token)? {
            return Ok(address);
        }
        tokio::time::sleep(apart).await;
        apart = (apart * 2).min(LOOKS_APART_MAX);
    }
}

/// `None`: it is not ready.
pub(crate) fn look(path: &Path, token: &str) -> Result<Option<Address>, ReadyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    let Ready { authority } = serde_json::from_slice(&text)?;
    Ok(Some(Address { authority, token: token.to_owned() }))
}
