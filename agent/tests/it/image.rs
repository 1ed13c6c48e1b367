//! The image of the tests: one static program, made without a registry.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

const SOURCE: &str = include_str!("../grader/grader.rs");

/// Of the environment that all tests use.
pub(crate) const ENVIRONMENT: &str = "slotmux-it";
pub(crate) const TAG: &str = "slotmux-agent-test:grader";
/// Ends before anybody can attach to it, or so it would be if we were late.
pub(crate) const DIES: &str = "slotmux-it-dies";
/// Cannot be started at all.
pub(crate) const BROKEN: &str = "slotmux-it-broken";

pub(crate) fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Why there is none, if there is none.
pub(crate) fn make() -> Result<(), String> {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    MADE.get_or_init(|| {
        docker(&["version", "--format", "{{.Server.Version}}"])?;
        let root = tree();
        let command = ["CMD [\"/grader\"]"];
        import(&root, TAG, ENVIRONMENT, &command);
        let dies = ["CMD [\"/bin/_run_student_intern\"]"];
        import(&root, "slotmux-agent-test:dies", DIES, &dies);
        import(&root, "slotmux-agent-test:broken", BROKEN, &["CMD [\"/no/such/program\"]"]);
        Ok(())
    })
    .clone()
}

fn hash() -> String {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What is in the image.
fn tree() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("grader-{}", hash()));
    if root.join("done").exists() {
        return root;
    }
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for dir in ["bin", "task", "sockets", "course/common", "tmp", "root/bin"] {
        fs::create_dir_all(work.path().join(dir)).unwrap();
    }
    let source = work.path().join("grader.rs");
    fs::write(&source, SOURCE).unwrap();
    let rustc = env::var("RUSTC").unwrap_or("rustc".to_owned());
    let status = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
        ])
        .arg("-o")
        .arg(work.path().join("root/grader"))
        .arg(&source)
        .status()
        .expect("rustc");
    assert!(status.success(), "the grader is compiled");
    fs::copy(work.path().join("root/grader"), work.path().join("root/bin/_run_student_intern"))
        .unwrap();
    fs::write(work.path().join("done"), b"").unwrap();
    // Another test process may have been faster.
    let work = work.keep();
    if fs::rename(&work, &root).is_err() {
        let _ = fs::remove_dir_all(&work);
    }
    root
}

fn import(root: &Path, tag: &str, name: &str, changes: &[&str]) {
    let label = format!("{}-{changes:?}", hash());
    let format = "{{index .Config.Labels \"slotmux.test.hash\"}}";
    if docker(&["image", "inspect", tag, "--format", format]).is_ok_and(|it| it == label) {
        return;
    }
    let old = docker(&["image", "inspect", tag, "--format", "{{.Id}}"]);
    let mut command = Command::new("docker");
    command.args(["import", "--change", "ENV PATH=/bin"]);
    for (key, value) in [
        ("org.inginious.grading.name", name),
        ("org.inginious.grading.agent_version", "4"),
        ("slotmux.test.hash", &label),
    ] {
        command.arg("--change").arg(format!("LABEL {key}={value:?}"));
    }
    for change in changes {
        command.args(["--change", change]);
    }
    let mut import =
        command.args(["-", tag]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", root.join("root")).unwrap();
    import.stdin.take().unwrap().write_all(&tar.into_inner().unwrap()).unwrap();
    assert!(import.wait().unwrap().success(), "image {tag} is made");
    if let Ok(old) = old {
        // Another test process may have containers of it.
        let _ = docker(&["rmi", &old]);
    }
}
