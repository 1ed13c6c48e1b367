//! Removes a directory for certain, or says why not.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

/// Processes that were killed may write for a moment yet.
const TRIES: u32 = 50;
const TRIES_APART: Duration = Duration::from_millis(20);

/// How deep we go to make directories writable.
const DEPTH_MAX: usize = 256;

/// Ok means that nothing is there any more.
pub(crate) async fn tree(path: &Path) -> io::Result<()> {
    let mut tried = 0;
    loop {
        let path = path.to_owned();
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await?;
        tried += 1;
        match removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tried < TRIES => {
                tokio::time::sleep(TRIES_APART).await;
            }
            other => return other,
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path, 0)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// A directory that its owner may not write to cannot be emptied.
fn make_writable(path: &Path, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX || !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        make_writable(&entry?.path(), depth + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_that_may_not_be_written_is_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("locked/inner")).unwrap();
        fs::write(top.join("locked/inner/file"), "x").unwrap();
        fs::set_permissions(top.join("locked/inner"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(top.join("locked"), Permissions::from_mode(0o500)).unwrap();
        tree(&top).await.unwrap();
        assert!(!top.exists());
        tree(&top).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_link_points_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        fs::create_dir(dir.path().join("top")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("kept"), dir.path().join("top/link")).unwrap();
        tree(&dir.path().join("top")).await.unwrap();
        assert!(dir.path().join("kept").exists());
    }
}
