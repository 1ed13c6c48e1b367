use super::*;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::Ordering,
};
use tempfile::TempDir;

struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tasks/course/task")).unwrap();
        Self { dir }
    }

    fn tasks(&self) -> PathBuf {
        self.dir.path().join("tasks")
    }

    fn task(&self) -> PathBuf {
        self.tasks().join("course/task")
    }

    fn recipe(&self) -> Recipe {
        Recipe {
            tasks: Some(self.tasks()),
            task: Some(TaskPath::new("course", "task").unwrap()),
            files: None,
            unwanted: Arc::default(),
        }
    }

    fn folder(&self) -> Folder {
        Folder::at(self.dir.path().join("job"))
    }
}

#[test]
fn a_task_is_copied_with_its_course() {
    let site = Site::new();
    fs::create_dir_all(site.task().join("a/b")).unwrap();
    fs::write(site.task().join("a/b/run"), b"#!").unwrap();
    fs::set_permissions(site.task().join("a/b/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir_all(site.tasks().join("course/$common/student")).unwrap();
    fs::write(site.tasks().join("course/$common/student/lib"), vec![7; 700_000]).unwrap();
    let folder = site.folder();
    folder.make(&site.recipe()).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read(folder.task().join("a/b/run")).unwrap(), b"#!");
    assert_eq!(mode(folder.task().join("a/b/run")), 0o755, "nobody becomes somebody else");
    assert_eq!(fs::read(folder.common_student().join("lib")).unwrap(), vec![7; 700_000]);
    for dir in [folder.task(), folder.sockets(), folder.student()] {
        assert_eq!(mode(dir), 0o777);
    }
    remove(folder.root()).unwrap();
    assert!(!folder.root().exists());
    remove(folder.root()).unwrap();
}

#[test]
fn links_in_a_task_stay_links_and_what_is_no_file_is_left_out() {
    let site = Site::new();
    symlink("/etc/passwd", site.task().join("secret")).unwrap();
    symlink("..", site.task().join("up")).unwrap();
    let pipe = site.task().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, EVERYBODY, 0).unwrap();
    let folder = site.folder();
    folder.make(&site.recipe()).unwrap();
    assert_eq!(fs::read_link(folder.task().join("secret")).unwrap(), Path::new("/etc/passwd"));
    assert!(folder.task().join("up").is_symlink());
    assert!(!folder.task().join("pipe").exists());
    remove(folder.root()).unwrap();
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn the_parts_of_a_task_go_where_they_are_mounted_from() {
    let site = Site::new();
    for (path, text) in
        [("student/scripts/a", "a"), ("student/b", "b"), ("systemfiles/hosts", "c"), ("d", "d")]
    {
        let path = site.task().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let folder = site.folder();
    folder.make(&site.recipe()).unwrap();
    for (path, text) in [
        (folder.scripts().join("a"), "a"),
        (folder.student().join("b"), "b"),
        (folder.systemfiles().join("hosts"), "c"),
        (folder.task().join("d"), "d"),
    ] {
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
    assert_eq!(fs::read_dir(folder.task().join("student")).unwrap().count(), 0);
}

#[test]
fn only_a_socket_is_bound_and_stays_what_it_was() {
    let site = Site::new();
    let folder = site.folder();
    folder.make_empty().unwrap();
    let socket = folder.sockets().join("good.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let bound = folder.bind_socket("good", "0").unwrap();
    fs::remove_file(&socket).unwrap();
    symlink("/etc/passwd", &socket).unwrap();
    std::os::unix::net::UnixStream::connect(&bound).unwrap();
    assert!(folder.bind_socket("good", "1").is_err(), "a link to anywhere");
    fs::write(folder.sockets().join("file.sock"), "").unwrap();
    assert!(folder.bind_socket("file", "2").is_err());
    assert!(folder.bind_socket("none", "3").is_err());
    assert!(folder.bind_socket("../bound/0", "4").is_err());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for bad in ["", "..", "../x", "/etc", "a/../b", " a", "a ", "a/", "./a", "a/./b", "a\0", "a//b"]
    {
        assert!(TaskPath::new(bad, "task").is_err(), "{bad:?}");
        assert!(TaskPath::new("course", bad).is_err(), "{bad:?}");
    }
    let site = Site::new();
    symlink("/etc", site.tasks().join("course/linked")).unwrap();
    let linked = TaskPath::new("course", "linked").unwrap();
    assert!(!linked.is_there(&site.tasks()), "a task that is a link to anywhere");
    assert!(TaskPath::new("course", "task").unwrap().is_there(&site.tasks()));
    assert!(!TaskPath::new("course", "none").unwrap().is_there(&site.tasks()));
}

#[test]
fn a_copy_that_nobody_wants_any_more_ends() {
    let site = Site::new();
    fs::write(site.task().join("large"), b"x").unwrap();
    let recipe = site.recipe();
    recipe.unwanted.store(true, Ordering::Relaxed);
    let error = site.folder().make(&recipe).unwrap_err();
    assert!(matches!(error, FolderError::Copy(copy::CopyError::Unwanted)), "{error:?}");
}

#[test]
fn an_archive_is_unpacked_over_the_task_and_leads_nowhere_else() {
    let site = Site::new();
    fs::write(site.task().join("run"), b"old").unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o755);
    header.set_cksum();
    tar.append_data(&mut header, "run", &b"new"[..]).unwrap();
    let files = tar.into_inner().unwrap();
    let folder = site.folder();
    folder.make(&Recipe { files: Some(files.into()), ..site.recipe() }).unwrap();
    assert_eq!(fs::read(folder.task().join("run")).unwrap(), b"new");

    let mut tar = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "out", site.dir.path()).unwrap();
    tar.append_data(&mut header, "out/escaped", &b"new"[..]).unwrap();
    let files = tar.into_inner().unwrap();
    let folder = Folder::at(site.dir.path().join("second"));
    folder.make(&Recipe { files: Some(files.into()), ..site.recipe() }).unwrap_err();
    assert!(!site.dir.path().join("escaped").exists());
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    let site = Site::new();
    let folder = site.folder();
    folder.make_empty().unwrap();
    let mut dir = open_dir(&folder.task()).unwrap();
    for _ in 0..5_000 {
        rustix::fs::mkdirat(&dir, "d", EVERYBODY).unwrap();
        dir = open_below(&dir, "d").unwrap();
    }
    drop(dir);
    remove(folder.root()).unwrap();
    assert!(!folder.root().exists());
}
