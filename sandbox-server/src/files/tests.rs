use super::*;
use rustix::fs::FileType;
use std::{fs, os::unix::fs::symlink};

pub(super) fn workspace() -> (tempfile::TempDir, Workspace) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("workspace")).unwrap();
    fs::write(dir.path().join("secret"), "s").unwrap();
    let workspace = Workspace::open(&dir.path().join("workspace"), None, 200_000).unwrap();
    (dir, workspace)
}

#[test]
fn what_was_written_is_read_back_by_any_of_its_names() {
    let (_dir, workspace) = workspace();
    workspace.write("a/b/c.txt", b"one").unwrap();
    for name in ["a/b/c.txt", "./a/b/../b/c.txt", "/workspace/a/b/c.txt", "/workspace//a/b/c.txt"] {
        assert_eq!(workspace.read(name).unwrap(), b"one", "{name}");
    }
    workspace.write("a/b/c.txt", b"o").unwrap();
    assert_eq!(workspace.read("a/b/c.txt").unwrap(), b"o");
}

#[test]
fn no_path_leads_outside() {
    let (dir, workspace) = workspace();
    symlink("../secret", dir.path().join("workspace/link")).unwrap();
    symlink(dir.path(), dir.path().join("workspace/up")).unwrap();
    symlink("loop", dir.path().join("workspace/loop")).unwrap();
    for path in
        ["../secret", "/etc/hostname", "a/../../secret", "link", "up/secret", "loop", "x\0y"]
    {
        assert_eq!(workspace.write(path, b"x"), Err(FileError::Outside), "write {path:?}");
        let read = workspace.read(path).unwrap_err();
        assert!(
            matches!(read, FileError::Outside | FileError::NotFound(_)),
            "read {path:?}: {read}"
        );
    }
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"s");
    assert!(!dir.path().join("a").exists());
}

#[test]
fn what_is_not_a_file_is_refused_at_once() {
    let (dir, workspace) = workspace();
    let fifo = dir.path().join("workspace/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::create_dir(dir.path().join("workspace/dir")).unwrap();
    for path in ["fifo", "dir"] {
        assert_eq!(workspace.read(path), Err(FileError::NotAFile(path.into())));
        assert_eq!(workspace.write(path, b""), Err(FileError::NotAFile(path.into())));
    }
    assert_eq!(workspace.read("none"), Err(FileError::NotFound("none".into())));
}

#[test]
fn a_file_is_written_up_to_the_limit_and_not_one_byte_past_it() {
    let (_dir, workspace) = workspace();
    workspace.write("f", &vec![b'x'; 200_000]).unwrap();
    let error = FileError::TooLarge { bytes: 200_001, max: 200_000 };
    assert_eq!(workspace.write("f", &vec![b'x'; 200_001]), Err(error));
}

#[test]
fn a_file_is_read_up_to_the_limit_and_not_one_byte_past_it() {
    let (_dir, workspace) = workspace();
    let mut content = vec![b'x'; 100_000];
    workspace.write("f", &content).unwrap();
    assert_eq!(workspace.read("f").unwrap(), content);
    content.push(b'x');
    workspace.write("f", &content).unwrap();
    assert_eq!(workspace.read("f"), Err(FileError::TooLarge { bytes: 100_001, max: 100_000 }));
}

fn rooted() -> (tempfile::TempDir, Workspace) {
    let (dir, workspace) = workspace();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::write(root.join("etc/conf"), "conf").unwrap();
    symlink("/etc/conf", root.join("absolute")).unwrap();
    symlink("../../../etc/conf", root.join("etc/up")).unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let root = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    let Workspace { dir: below, .. } = workspace;
    (dir, Workspace::of_views(below, Some(root), None, 200_000))
}

#[test]
fn absolute_paths_lead_into_the_slots_own_root_and_no_further() {
    let (dir, workspace) = rooted();
    for path in ["/etc/conf", "//etc/conf", "/absolute", "/etc/up", "/../../etc/conf"] {
        assert_eq!(workspace.read(path).unwrap(), b"conf", "{path}");
    }
    workspace.write("/new/dir/f", b"x").unwrap();
    assert_eq!(fs::read(dir.path().join("root/new/dir/f")).unwrap(), b"x");
    workspace.write("/workspace/f", b"y").unwrap();
    assert_eq!(fs::read(dir.path().join("workspace/f")).unwrap(), b"y");
    assert_eq!(workspace.read("/workspace/f").unwrap(), b"y");
    // Relative paths are those of the workspace, as before.
    assert_eq!(workspace.read("../secret"), Err(FileError::Outside));
    assert!(matches!(workspace.read("/secret"), Err(FileError::NotFound(_))));
}

/// Some of the kernel's files ask who the process is, not whose files it works with.
#[test]
fn the_kernels_files_are_not_the_slots() {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let (_dir, workspace) = workspace();
    let Workspace { dir, .. } = workspace;
    let workspace = Workspace::of_views(dir, Some(root), None, 0);
    for path in ["/proc/self/environ", "/proc/sys/kernel/hostname"] {
        assert_eq!(workspace.read(path), Err(FileError::Outside), "{path}");
        assert_eq!(workspace.write(path, b""), Err(FileError::Outside), "{path}");
    }
    let until = Until::new(CallLimits::default(), &CancellationToken::new());
    let args = slotmux_protocol::ListFilesArgs { path: Some("/proc".into()), ..Default::default() };
    let listed = tools::run(&workspace, &slotmux_protocol::ToolCall::ListFiles(args), &until);
    assert_eq!(listed, Err(FileError::Outside));
}

#[test]
fn a_path_is_split_at_its_last_name() {
    let (_dir, workspace) = workspace();
    for (path, above, name) in [
        ("a", ".", "a"),
        ("a/b", "a/", "b"),
        ("a//b//", "a//", "b"),
        ("/workspace/x", ".", "x"),
        ("../x", "../", "x"),
    ] {
        let (found, last) = workspace.place(path).unwrap().split().unwrap();
        assert_eq!((found.path.to_str(), last.to_str()), (Some(above), Some(name)), "{path}");
    }
    for path in [".", "..", "a/..", "a/.", "/workspace", "/workspace/"] {
        assert!(workspace.place(path).unwrap().split().is_none(), "{path}");
    }
}

#[test]
fn a_tree_is_deleted_whatever_its_depth_is() {
    const DEPTH: u32 = 500;
    let (dir, workspace) = workspace();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(dir.path().join("workspace"), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
        rustix::fs::mkdirat(&at, ".deleted-3", Mode::RWXU).unwrap();
    }
    rustix::fs::mkdirat(&at, "closed", Mode::empty()).unwrap();
    let until = Until::new(CallLimits::default(), &CancellationToken::new());
    let args = slotmux_protocol::DeleteArgs { path: "d".into(), recursive: true };
    let told = tools::run(&workspace, &slotmux_protocol::ToolCall::Delete(args), &until).unwrap();
    assert_eq!(told.data.unwrap()["entries"], 2 * DEPTH + 1);
    assert!(!dir.path().join("workspace/d").exists());
}
