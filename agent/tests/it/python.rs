//! The grading image in Python, and tasks for it. Only where there is a Python to put into it.

use crate::image::docker;
use crate::lab::{Lab, brief, done, grade, graded, map, order};
use rmpv::Value;
use slotmux_agent::{AgentHandle, Debug, Graded, JobDone, Verdict};
use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};
use tokio::time::timeout;

const PYTHON: &str = "/usr/bin/python3";
const SOURCE: &str = include_str!("../grader/grader.py");
const ENVIRONMENT: &str = "slotmux-it-python";
const TAG: &str = "slotmux-agent-test:python";
const HASH: &str = "slotmux.test.hash";

/// The files of every module that the grader uses, and of what these need.
const MODULES: &str = "
import sys, sysconfig, os, glob
exec(compile(sys.argv[1].split('if __name__')[0], 'grader', 'exec'))
import zlib, gzip, time, encodings.idna, encodings.latin_1
stdlib = sysconfig.get_path('stdlib')
files = {m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)}
files |= set(glob.glob(stdlib + '/encodings/*.py'))
print('\\n'.join(sorted(file for file in files if os.path.isfile(file))))
";

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|it| it.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `ldd` says a file needs.
fn libraries(file: &str) -> Vec<String> {
    let said = run("ldd", &[file]).unwrap_or_default();
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    said.lines().filter_map(path).collect()
}

fn make() -> Result<(), String> {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    MADE.get_or_init(|| {
        let modules = run(PYTHON, &["-I", "-c", MODULES, SOURCE])?;
        let hash = hash(&modules);
        let label = format!("{{{{index .Config.Labels \"{HASH}\"}}}}");
        if docker(&["image", "inspect", TAG, "--format", &label]).is_ok_and(|it| it == hash) {
            return Ok(());
        }
        let mut files: BTreeSet<String> = modules.lines().map(str::to_owned).collect();
        files.insert(PYTHON.to_owned());
        for file in files.clone() {
            if file == PYTHON || file.contains(".so") {
                files.extend(libraries(&file));
            }
        }
        let mut tar = tar::Builder::new(Vec::new());
        for file in files {
            // Links are followed: a file stands under each of its names.
            tar.append_path_with_name(&file, file.trim_start_matches('/'))
                .map_err(|it| it.to_string())?;
        }
        let script = format!("#!{PYTHON}\n{SOURCE}");
        for (name, text) in [("grader.py", SOURCE), ("bin/_run_student_intern", &script)] {
            put(&mut tar, name, text)?;
        }
        put(&mut tar, "tmp/.keep", "")?;
        import(&tar.into_inner().map_err(|it| it.to_string())?, &hash)
    })
    .clone()
}

fn put(tar: &mut tar::Builder<Vec<u8>>, name: &str, text: &str) -> Result<(), String> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, name, text.as_bytes()).map_err(|it| it.to_string())
}

/// Of what the image is made of.
fn hash(modules: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (SOURCE, MODULES, modules).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn import(tar: &[u8], hash: &str) -> Result<(), String> {
    let hash = format!("LABEL {HASH}={hash}");
    let name = format!("LABEL org.inginious.grading.name={ENVIRONMENT}");
    let changes = [
        "ENV PATH=/usr/bin:/bin",
        &name,
        &hash,
        "LABEL org.inginious.grading.agent_version=4",
        "CMD [\"/usr/bin/python3\", \"/grader.py\"]",
    ];
    let mut command = Command::new("docker");
    command.arg("import");
    for change in changes {
        command.args(["--change", change]);
    }
    let import = command.args(["-", TAG]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut import = import.map_err(|it| it.to_string())?;
    let mut stdin = import.stdin.take().ok_or("no stdin")?;
    stdin.write_all(tar).map_err(|it| it.to_string())?;
    drop(stdin);
    let status = import.wait().map_err(|it| it.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("import: {status}")) }
}

async fn open(test: &str) -> Option<(Lab, AgentHandle)> {
    let lab = Lab::open(test)?;
    if !Path::new(PYTHON).exists() {
        println!("skipped: {test}: no {PYTHON}");
        return None;
    }
    make().expect("the image in Python");
    let agent = lab.agent().await;
    let mut environments = agent.environments();
    let found = environments.wait_for(|it| it.get("docker", ENVIRONMENT).is_some());
    timeout(Duration::from_mins(1), found).await.expect("the image is found").unwrap();
    Some((lab, agent))
}

fn task(lab: &Lab, name: &str, script: &str) -> Graded {
    let dir = lab.task(name, "");
    fs::write(dir.join("run.py"), format!("import grader\n{script}")).unwrap();
    let limits = [("time", 30.into()), ("memory", 200.into())];
    Graded { environment: ENVIRONMENT.to_owned(), ..graded(name, &limits) }
}

#[tokio::test]
async fn a_task_in_python_says_everything_that_a_result_can_have() {
    let Some((lab, agent)) = open("a task in Python").await else { return };
    let script = r#"
given = grader.inputdata()
assert given["file"] == {"filename": "a", "value": b"\x00\xff"} and given[3] is None, given
assert isinstance(given["float"], float) and given["large"] == 1 << 63, given
open("/archive/kept.txt", "w").write("kept")
print("printed")
grader.feedback(result="failed", text="almost", grade=87.456, state="next",
    problems={"q1": ["success", "ok"]}, tests={"t*": 1}, custom={"any": {"thing": [1.5, None]}})
"#;
    let file = map(&[("filename", "a".into()), ("value", Value::Binary(vec![0, 255]))]);
    let mut order = task(&lab, "all", script);
    order.debug = Debug::Yes;
    order.inputdata = Value::Map(vec![
        ("file".into(), file),
        (3.into(), Value::Nil),
        ("float".into(), 1.0.into()),
        ("large".into(), (1_u64 << 63).into()),
    ]);
    let done = grade(&agent, "1", order).await;
    assert_eq!(brief(&done), (Verdict::Failed, "almost", "next"), "{:?}", done.stderr);
    assert_eq!((done.grade, done.stdout.as_deref()), (87.46, Some("printed\n")));
    assert_eq!(done.problems["q1"][0], "success".into());
    assert_eq!((&done.tests["t*"], &done.custom["any"]["thing"][0]), (&1.into(), &1.5.into()));
    assert_eq!(done.archive.as_deref().map(|it| &it[..2]), Some(&b"\x1f\x8b"[..]));
    lab.is_clean().await;
}

#[tokio::test]
async fn what_is_no_result_is_badly_formatted_field_by_field() {
    let Some((lab, agent)) = open("bad results in Python").await else { return };
    let bad = [
        "grade=100",
        "grade='1'",
        "text=1",
        "state=None",
        "result=7",
        "problems=[]",
        "tests=None",
        "problems={'a b': ['success', '']}",
        "problems={'a': {}}",
        "tests={'a/b': 1}",
        "tests={'a': {'b': 1}}",
        "archive=5",
        "archive='*'",
        "custom=[]",
        "unknown_key=1",
    ];
    let good = ["grade=1.5", "custom={'a': {'b': 1}}", "tests={'A-1._*': [1]}", "text=''"];
    let mut followers = Vec::new();
    for (number, fields) in bad.iter().chain(&good).enumerate() {
        let name = format!("t{number}");
        let said = format!("grader.feedback(result='success')\ngrader.feedback({fields})");
        followers.push(agent.submit(order(&name, task(&lab, &name, &said))).unwrap());
    }
    for (number, (fields, follower)) in bad.iter().chain(&good).zip(followers).enumerate() {
        let done = done(follower).await;
        let JobDone::Graded(done) = &*done else { panic!("another kind") };
        if number < bad.len() {
            assert_eq!((done.verdict, done.state.as_str()), (Verdict::Crash, "before"), "{fields}");
            let begins = "The grader did not return a readable output : ";
            assert!(done.text.starts_with(begins), "{fields}: {}", done.text);
        } else {
            assert_eq!(done.verdict, Verdict::Success, "{fields}: {}", done.text);
        }
    }
    let done = grade(&agent, "none", task(&lab, "none", "")).await;
    assert_eq!(brief(&done), (Verdict::Crash, "No feedback was given !", ""));
    lab.is_clean().await;
}

#[tokio::test]
async fn a_students_program_gets_its_files_and_gives_its_code() {
    let Some((lab, agent)) = open("a student's program in Python").await else { return };
    let script = r#"
python = "/usr/bin/python3 -c "
said = [
    grader.run_student(python + "'import os, sys; print(os.getuid()); print(6 * 7, file=sys.stderr); sys.exit(7)'"),
    grader.run_student("/usr/bin/python3 /task/student/program.py", share_network=True),
    grader.run_student(python + "'while True: pass'", time_limit=1),
    grader.run_student(python + "'import time; time.sleep(60)'", hard_time_limit=1),
    grader.run_student(python + "'x = bytearray(500 << 20); print(sum(x))'", memory_limit=30),
    grader.run_student(python + "'pass'", environment="no-such"),
    grader.run_student(python + "'pass'", run_as_root=True),
]
grader.feedback(result="success", text=repr([code for code, _, _ in said]), custom={"first": said[0], "second": said[1]})
"#;
    let order = task(&lab, "students", script);
    let program = lab.settings.tasks.as_ref().unwrap().join("course/students/student/program.py");
    fs::write(program, "print(open('/task/student/program.py').read().count('print'))").unwrap();
    let order = Graded { debug: Debug::Yes, ..order };
    let done = grade(&agent, "1", order).await;
    assert_eq!(done.text, "[7, 0, 253, 253, 252, 254, 254]", "{:?}", done.stderr);
    let first = Value::Array(vec![7.into(), "4242\n".into(), "42\n".into()]);
    assert_eq!(done.custom["first"], first);
    assert_eq!(done.custom["second"][1], "2\n".into());
    lab.is_clean().await;
}
