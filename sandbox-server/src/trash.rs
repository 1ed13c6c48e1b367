//! Directories on their way out: renamed away at once, deleted by one thread in its own time.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

#[derive(Debug, Clone)]
pub(crate) struct Trash {
    dir: PathBuf,
    next: Arc<AtomicU64>,
    queue: mpsc::Sender<PathBuf>,
}

impl Trash {
    /// What an earlier server left there is deleted first.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let (queue, doomed) = mpsc::channel::<PathBuf>();
        let mut last = 0;
        for entry in fs::read_dir(&dir)?.flatten() {
            let number = entry.file_name().to_str().and_then(|it| it.parse().ok()).unwrap_or(0);
            last = last.max(number);
            // The receiver lives below, in this very function.
            let _ = queue.send(entry.path());
        }
        thread::Builder::new().name("trash".to_owned()).stack_size(256 << 10).spawn(move || {
            for path in doomed {
                if let Err(error) = delete(&path) {
                    tracing::warn!(path = %path.display(), %error, "trash not deleted");
                }
            }
        })?;
        Ok(Self { dir, next: Arc::new(AtomicU64::new(last + 1)), queue })
    }

    /// The path is free when this returns; nothing there before is no error.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let grave = self.dir.join(number.to_string());
        match fs::rename(path, &grave) {
            Ok(()) => self.queue.send(grave).map_err(|_| io::Error::other("the trash is shut")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Also what its owner made unreadable for himself.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(dir: &Path) {
    // What cannot be changed shows in the deletion that follows.
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            open_up(&entry.path());
        }
    }
}
