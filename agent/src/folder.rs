//! The folder of a job on this machine: its task, copied, and the sockets of its students.
//!
//! Invariants: nothing is read but what lies in the tasks' directory, whatever its links and names
//! say; nothing is written but below the job's own folder; what is there can be removed, whatever
//! a container has made of it. What is mounted into a student's container is never a name that a
//! container could have given to something else: an engine follows links.

mod copy;
mod remove;
mod unpack;

pub(crate) use remove::remove;

use bytes::Bytes;
use copy::Copy;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmod, fstat, linkat, mkdir, open,
        openat, openat2,
    },
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

const EVERYBODY: Mode = Mode::from_raw_mode(0o777);
const COMMON: &str = "$common";
const STUDENT: &str = "student";
const SCRIPTS: &str = "scripts";
const SYSTEMFILES: &str = "systemfiles";

/// What a folder is made of.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// With a folder for each course.
    pub(crate) tasks: Option<PathBuf>,
    pub(crate) task: Option<TaskPath>,
    /// Unpacked over the task.
    pub(crate) files: Option<Bytes>,
    /// Nobody wants it any more.
    pub(crate) unwanted: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskPath {
    course: String,
    task: String,
}

/// Where the parts of a job's folder are.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error("make `{path}`")]
    Make { path: PathBuf, source: io::Error },
    #[error("copy the task")]
    Copy(#[source] copy::CopyError),
    #[error("remove what was copied")]
    Remove(#[source] remove::RemoveError),
    #[error("unpack the files that came with the job")]
    Unpack(#[source] unpack::UnpackError),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no path of a task")]
pub(crate) struct BadPath(String);

impl TaskPath {
    pub(crate) fn new(course: &str, task: &str) -> Result<Self, BadPath> {
        for part in [course, task] {
            let path = Path::new(part);
            let is_plain = |it: Component| matches!(it, Component::Normal(_));
            let fits = !part.is_empty()
                && part.trim() == part
                && !part.contains('\0')
                && !part.ends_with('/')
                && path.components().all(is_plain)
                // `a/./b` would have gone by.
                && path.components().count() == part.split('/').count();
            if !fits {
                return Err(BadPath(part.chars().take(100).collect()));
            }
        }
        Ok(Self { course: course.to_owned(), task: task.to_owned() })
    }

    /// Whether there is such a task.
    pub(crate) fn is_there(&self, tasks: &Path) -> bool {
        let course = open_course(tasks, &self.course);
        course.is_ok_and(|course| open_below(&course, &self.task).is_ok())
    }
}

impl Folder {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn task(&self) -> PathBuf {
        self.root.join("task")
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.root.join("sockets")
    }

    pub(crate) fn common(&self) -> PathBuf {
        self.root.join("course/common")
    }

    pub(crate) fn common_student(&self) -> PathBuf {
        self.common().join(STUDENT)
    }

    /// Mounted over the task's own, so that nobody in there can move it.
    pub(crate) fn student(&self) -> PathBuf {
        self.root.join("student")
    }

    pub(crate) fn scripts(&self) -> PathBuf {
        self.root.join("scripts")
    }

    pub(crate) fn systemfiles(&self) -> PathBuf {
        self.root.join("systemfiles")
    }

    /// Seen by no container.
    fn bound(&self) -> PathBuf {
        self.root.join("bound")
    }

    /// A name for what is a socket at this moment, and stays it. Blocks.
    pub(crate) fn bind_socket(&self, socket_id: &str, name: &str) -> io::Result<PathBuf> {
        let sockets = open_dir(&self.sockets())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(&sockets, format!("{socket_id}.sock"), flags, Mode::empty())?;
        let mode = fstat(&found)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Socket {
            return Err(io::Error::other("it is no socket"));
        }
        let bound = self.bound().join(name);
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        linkat(CWD, itself, CWD, &bound, AtFlags::SYMLINK_FOLLOW)?;
        Ok(bound)
    }

    /// Blocks. After an error, something of it may be there.
    pub(crate) fn make(&self, recipe: &Recipe) -> Result<(), FolderError> {
        self.make_empty()?;
        self.fill(recipe)
    }

    /// Everything that a container mounts, with nothing in it.
    pub(crate) fn make_empty(&self) -> Result<(), FolderError> {
        // Root's alone: within it, everybody may do everything.
        make_dir(&self.root, Mode::from_raw_mode(0o711))?;
        make_dir(&self.root.join("course"), EVERYBODY)?;
        for dir in [self.task(), self.sockets(), self.common(), self.common_student()] {
            make_dir(&dir, EVERYBODY)?;
        }
        for dir in [self.student(), self.scripts(), self.systemfiles()] {
            make_dir(&dir, EVERYBODY)?;
        }
        // Where they are mounted.
        for dir in [self.task().join(STUDENT), self.student().join(SCRIPTS)] {
            make_dir(&dir, EVERYBODY)?;
        }
        make_dir(&self.task().join(SYSTEMFILES), EVERYBODY)?;
        make_dir(&self.bound(), Mode::from_raw_mode(0o700))
    }

    pub(crate) fn fill(&self, recipe: &Recipe) -> Result<(), FolderError> {
        let mut copy = Copy::new(recipe.unwanted.clone());
        if let (Some(tasks), Some(path)) = (&recipe.tasks, &recipe.task) {
            self.copy_task(tasks, path, &mut copy).map_err(FolderError::Copy)?;
        }
        if let Some(files) = &recipe.files {
            self.unpack(files, &mut copy)?;
        }
        for dir in [self.task(), self.student()] {
            chmod(&dir, EVERYBODY)
                .map_err(|error| FolderError::Make { path: dir, source: error.into() })?;
        }
        Ok(())
    }

    /// Over what is there.
    fn unpack(&self, files: &[u8], copy: &mut Copy) -> Result<(), FolderError> {
        let unpacked = self.root.join("unpacked");
        make_dir(&unpacked, Mode::from_raw_mode(0o700))?;
        unpack::unpack(files, &unpacked).map_err(FolderError::Unpack)?;
        let from = open_dir(&unpacked).map_err(copy::CopyError::open(&unpacked));
        from.and_then(|from| self.distribute(&from, copy)).map_err(FolderError::Copy)?;
        remove(&unpacked).map_err(FolderError::Remove)
    }

    /// A task's parts to where they are mounted from.
    fn distribute(&self, task: &OwnedFd, copy: &mut Copy) -> Result<(), copy::CopyError> {
        copy.dir(task, &self.task(), &[STUDENT, SYSTEMFILES])?;
        if let Some(student) = part(task, STUDENT)? {
            copy.dir(&student, &self.student(), &[SCRIPTS])?;
            if let Some(scripts) = part(&student, SCRIPTS)? {
                copy.dir(&scripts, &self.scripts(), &[])?;
            }
        }
        match part(task, SYSTEMFILES)? {
            Some(systemfiles) => copy.dir(&systemfiles, &self.systemfiles(), &[]),
            None => Ok(()),
        }
    }

    fn copy_task(
        &self,
        tasks: &Path,
        path: &TaskPath,
        copy: &mut Copy,
    ) -> Result<(), copy::CopyError> {
        let course = open_course(tasks, &path.course).map_err(copy::CopyError::open(tasks))?;
        let task = open_below(&course, &path.task).map_err(io::Error::from);
        let task = task.map_err(copy::CopyError::open(&path.task))?;
        self.distribute(&task, copy)?;
        match part(&course, COMMON)? {
            Some(common) => copy.dir(&common, &self.common(), &[]),
            None => Ok(()),
        }
    }
}

fn make_dir(path: &Path, mode: Mode) -> Result<(), FolderError> {
    let done = match mkdir(path, mode) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        // Whatever this process masks.
        other => other.and_then(|()| chmod(path, mode)),
    };
    done.map_err(|error| FolderError::Make { path: path.to_owned(), source: error.into() })
}

/// Whoever keeps the machine may have made the course a link; whoever writes a task may not.
fn open_course(tasks: &Path, course: &str) -> io::Result<OwnedFd> {
    let tasks = open(tasks, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH, Mode::empty())?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(openat2(&tasks, course, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

/// `None`: there is no such directory. A link is none.
fn part(dir: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, copy::CopyError> {
    match open_below(dir, name) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(copy::CopyError::open(name)(error.into())),
    }
}

fn open_below(dir: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(dir, path, flags, Mode::empty(), resolve)
}

/// Opens a directory that is our own.
fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// The name of a directory's file, in words that can be shown.
fn shown(name: &std::ffi::CStr) -> String {
    name.to_string_lossy().chars().take(100).collect()
}

/// For its time only: a descriptor is all there is of it.
fn as_file(fd: OwnedFd) -> File {
    fd.into()
}

#[cfg(test)]
mod tests;
