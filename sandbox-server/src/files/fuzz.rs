//! What the fuzzers feed to paths and tar streams: a workspace with traps, beside a file that
//! nothing may reach.

use super::{
    FileError, Until, Workspace,
    tar::{Limits, extract, pack},
    tools,
};
use serde_json::json;
use slotmux_protocol::{CallLimits, ToolCall};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tokio_util::sync::CancellationToken;

const SECRET: &str = "nobody may read or change this";

struct Yard {
    dir: PathBuf,
    workspace: Workspace,
}

fn yard() -> &'static Yard {
    static YARD: OnceLock<Yard> = OnceLock::new();
    YARD.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("slotmux-fuzz-{}", std::process::id()));
        lay(&dir).unwrap_or_else(|error| panic!("no place to fuzz in: {error}"));
        let workspace = Workspace::open(&dir.join("workspace"), None, 1 << 20);
        let workspace = workspace.unwrap_or_else(|errno| panic!("no workspace: {errno}"));
        Yard { dir, workspace }
    })
}

fn lay(dir: &Path) -> std::io::Result<()> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir.join("workspace/a/b"))?;
    fs::write(dir.join("secret"), SECRET)?;
    fs::write(dir.join("workspace/f"), "text\n")?;
    symlink("../secret", dir.join("workspace/up"))?;
    symlink(dir, dir.join("workspace/out"))?;
    symlink("a/b", dir.join("workspace/in"))?;
    symlink("loop", dir.join("workspace/loop"))
}

impl Yard {
    fn assert_whole(&self) {
        let secret = fs::read_to_string(self.dir.join("secret"));
        assert!(secret.is_ok_and(|it| it == SECRET), "the file outside was changed");
        let names = fs::read_dir(&self.dir).map(Iterator::count);
        assert_eq!(names.ok(), Some(2), "something was made or removed outside");
    }

    fn again(&self) {
        let top = self.dir.join("workspace");
        for entry in fs::read_dir(&top).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
        }
        let _ = fs::create_dir_all(top.join("a/b"));
        let _ = fs::write(top.join("f"), "text\n");
        for (target, name) in [("../secret", "up"), ("a/b", "in"), ("loop", "loop")] {
            let _ = symlink(target, top.join(name));
        }
        let _ = symlink(&self.dir, top.join("out"));
    }
}

fn until() -> Until {
    let limits = CallLimits { timeout_ms: 5_000, ..CallLimits::default() };
    Until::new(limits, &CancellationToken::new())
}

/// Two paths, parted by a newline, for every tool.
pub(crate) fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, two) = text.split_once('\n').unwrap_or((text, "a/new"));
    let yard = yard();
    for (tool, args) in [
        ("read_file", json!({ "path": one })),
        ("list_files", json!({ "path": one, "recursive": true })),
        ("glob", json!({ "path": one, "pattern": two })),
        ("grep", json!({ "path": one, "pattern": two, "glob": one })),
        ("stat", json!({ "path": one })),
        ("write_file", json!({ "path": one, "content": two, "append": true })),
        ("write_file", json!({ "path": one, "content": two, "atomic": true, "mode": "600" })),
        ("edit_file", json!({ "path": one, "old": "t", "new": two, "replace_all": true })),
        ("mkdir", json!({ "path": one })),
        ("move", json!({ "from": one, "to": two, "overwrite": true })),
        ("archive", json!({ "path": one })),
        ("delete", json!({ "path": one, "recursive": true })),
        ("delete", json!({ "path": two, "recursive": true })),
    ] {
        let Ok(call) = ToolCall::parse(tool, args) else { continue };
        if let Ok(told) = tools::run(&yard.workspace, &call, &until()) {
            assert!(!told.text.contains(SECRET), "{call:?} read what is outside");
        }
    }
    yard.assert_whole();
    yard.again();
}

/// A tar stream; what was taken of it is packed and taken again.
pub(crate) fn tar(data: &[u8]) {
    let yard = yard();
    let limits = Limits { entries_max: 200, bytes_max: 1 << 20, ..Limits::default() };
    let extracted = extract(&yard.workspace, "a/b", data, limits, &until());
    yard.assert_whole();
    if let Ok(extracted) = extracted {
        assert!(extracted.entries <= limits.entries_max && extracted.bytes <= limits.bytes_max);
        let mut packed = Vec::new();
        let wide = Limits { entries_max: 100_000, bytes_max: 1 << 30, ..limits };
        match pack(&yard.workspace, "a/b", &mut packed, wide, &until()) {
            Ok(_) => {
                let again = extract(&yard.workspace, "again", &*packed, wide, &until());
                assert!(again.is_ok(), "what was packed is not taken: {again:?}");
            }
            // Deeper than is packed.
            Err(FileError::OverLimit { .. }) => {}
            Err(error) => panic!("what was taken is not packed: {error}"),
        }
    }
    yard.again();
}
