//! A program that keeps credentials: asked for those of one registry.
//!
//! The protocol is <https://github.com/docker/docker-credential-helpers>'s: the registry on its
//! stdin, an object on its stdout.

use serde::Deserialize;
use std::{io, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// Somebody may have to type something.
const ANSWER_MAX: Duration = Duration::from_mins(1);
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// What helpers say of a registry that they do not know.
const NONE: &str = "credentials not found in native keychain";

#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    #[error("its name has a slash")]
    Name,
    #[error("run it")]
    Run(#[from] io::Error),
    #[error("it did not answer in {} seconds", ANSWER_MAX.as_secs())]
    Silent,
    #[error("it has more than {OUTPUT_BYTES_MAX} bytes to say")]
    TooMuch,
    #[error("it said: {0}")]
    Said(String),
    #[error("understand its answer")]
    Parse(#[from] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// A name and a secret.
pub(super) async fn ask(
    program: &str,
    registry: &str,
) -> Result<Option<(String, String)>, HelperError> {
    // Nothing but what is on the path.
    if program.contains('/') {
        return Err(HelperError::Name);
    }
    answer(program, registry).await
}

async fn answer(program: &str, registry: &str) -> Result<Option<(String, String)>, HelperError> {
    let run = run(program, registry);
    let (succeeded, output) = timeout(ANSWER_MAX, run).await.map_err(|_| HelperError::Silent)??;
    if output.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(HelperError::TooMuch);
    }
    if !succeeded {
        let said = String::from_utf8_lossy(&output);
        let said: String = said.trim().chars().take(1_000).collect();
        return if said.starts_with(NONE) { Ok(None) } else { Err(HelperError::Said(said)) };
    }
    let answer: Answer = serde_json::from_slice(&output)?;
    Ok(Some((answer.username, answer.secret)))
}

async fn run(program: &str, registry: &str) -> io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it has its answer ready.
        let _ = stdin.write_all(registry.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await?;
    }
    // Whatever it still has to say finds nobody.
    Ok((child.wait().await?.success(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/credential-helper");

    #[tokio::test]
    async fn a_helper_answers_or_has_none_or_says_why_not() {
        let known = answer(HELPER, "known").await.unwrap();
        assert_eq!(known, Some(("me".to_owned(), "word".to_owned())));
        assert_eq!(answer(HELPER, "other").await.unwrap(), None);
        let broken = answer(HELPER, "broken").await.unwrap_err();
        assert_eq!(broken.to_string(), "it said: the keychain is locked");
        let flood = answer(HELPER, "flood").await.unwrap_err();
        assert!(matches!(flood, HelperError::TooMuch), "{flood:?}");
        assert!(matches!(ask(HELPER, "known").await.unwrap_err(), HelperError::Name));
    }
}
