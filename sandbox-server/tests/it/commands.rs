//! What a command is given: its input, its environment, its directory.

use crate::{
    rung::{Rung, scenarios},
    server::Server,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

scenarios! {
    everywhere: [
        input_is_read_whole_and_its_end_is_seen,
        a_command_that_never_reads_its_input_ends_all_the_same,
        variables_are_the_commands_alone_and_may_replace_ours,
        a_command_begins_in_its_directory,
        a_directory_that_is_none_is_the_callers_mistake,
        what_no_environment_can_hold_is_refused_and_nothing_runs,
    ]
}

impl Server {
    async fn run(&self, slot: u16, args: Value) -> Value {
        let body = json!({ "tool": "bash", "args": args, "timeout_s": 20 }).to_string();
        let (status, result) = self.post(&format!("/v1/slots/slot_{slot}/execute"), body).await;
        assert_eq!(status, StatusCode::OK, "{result}");
        result
    }

    async fn printed(&self, slot: u16, args: Value) -> String {
        let result = self.run(slot, args).await;
        assert_eq!(result["success"], true, "{result}");
        result["output"].as_str().unwrap().trim_end().to_owned()
    }
}

async fn input_is_read_whole_and_its_end_is_seen(rung: &'static Rung) {
    let server = Server::start(rung);
    assert_eq!(server.printed(0, json!({ "command": "cat", "stdin": "a\0é\n" })).await, "a\0é");
    assert_eq!(server.printed(0, json!({ "command": "cat; echo end", "stdin": "" })).await, "end");
    let lines =
        json!({ "command": "read -r a; read -r b; echo \"$b $a\"; cat", "stdin": "1\n2\n3" });
    assert_eq!(server.printed(0, lines).await, "2 1\n3");
    let long = "0123456789".repeat(300_000);
    let count = server.printed(0, json!({ "command": "wc -c", "stdin": long })).await;
    assert_eq!(count, "3000000");
    let sums = json!({ "command": "cat /dev/stdin | md5sum; md5sum < /dev/stdin", "stdin": "x" });
    let sums = server.printed(0, sums).await;
    assert!(sums.starts_with("9dd4e461268c8034f5c8564e155c67a6"), "{sums}");
    // Nobody can change what another process of the command has still to read.
    let written = json!({ "command": "echo y > /dev/stdin; cat", "stdin": "x" });
    assert!(server.run(0, written).await["output"].as_str().unwrap().contains('x'));
}

async fn a_command_that_never_reads_its_input_ends_all_the_same(rung: &'static Rung) {
    let server = Server::start(rung);
    let long = "x".repeat(2_000_000);
    assert_eq!(server.printed(0, json!({ "command": "echo done", "stdin": long })).await, "done");
    let some = json!({ "command": "head -c 1 > /dev/null; echo done", "stdin": long });
    assert_eq!(server.printed(0, some).await, "done");
    assert_eq!(server.output(0, "cat; echo next").await, "next");
}

async fn variables_are_the_commands_alone_and_may_replace_ours(rung: &'static Rung) {
    let server = Server::start(rung);
    let env = json!({ "A": "1 2", "é.x": "y\nz=", "EMPTY": "", "HOME": "/tmp", "TERM": "xterm" });
    let command =
        "printf '%s|' \"$A\" \"$HOME\" \"$TERM\" \"${EMPTY-unset}\"; env | grep -ac '^é.x=y$'";
    let args = json!({ "command": command, "env": env });
    assert_eq!(server.printed(0, args).await, "1 2|/tmp|xterm||1");
    assert_eq!(server.output(0, "echo \"[$A]\"; [ \"$HOME\" = \"$PWD\" ]").await, "[]");
    // None of them is there twice, and none reaches what starts the command.
    let hostile = json!({
        "PATH": "/nonexistent", "LD_PRELOAD": "/nonexistent.so", "LD_LIBRARY_PATH": "/nonexistent",
        "GLIBC_TUNABLES": "x", "SHELLOPTS": "", "IFS": "x", "PS4": "$(touch /tmp/ps4)",
    });
    let command = "while IFS= read -r line; do case $line in PATH=*) echo \"$line\";; esac; done \
        < <(/usr/bin/env)";
    let output = server.printed(0, json!({ "command": command, "env": hostile })).await;
    assert!(output.contains("PATH=/nonexistent") && !output.contains("/usr/bin:"), "{output}");
    assert_eq!(server.output(0, "ls > /dev/null; echo works").await, "works");
    let startup = json!({ "BASH_ENV": "startup" });
    server.output(0, "echo 'echo started' > startup").await;
    let args = json!({ "command": "echo command", "env": startup });
    assert_eq!(server.printed(0, args).await, "started\ncommand");
}

async fn a_command_begins_in_its_directory(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "mkdir -p 'a b/c'; ln -s 'a b' link").await;
    for (cwd, ends) in [("a b/c", "/a b/c"), ("./a b/../a b", "/a b"), (".", ""), ("link/c", "c")] {
        let args = json!({ "command": "pwd; [ \"$PWD\" = \"$(pwd)\" ]", "cwd": cwd });
        let pwd = server.printed(0, args).await;
        assert!(pwd.ends_with(ends), "{cwd}: {pwd}");
    }
    let args = json!({ "command": "pwd; echo $PWD", "cwd": "/etc" });
    assert_eq!(server.printed(0, args).await, "/etc\n/etc");
    let tmp = server.output(0, "echo $TMPDIR").await;
    assert_eq!(server.printed(0, json!({ "command": "pwd", "cwd": tmp })).await, tmp);
}

async fn a_directory_that_is_none_is_the_callers_mistake(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "touch file; mkdir closed; chmod 000 closed; ln -s loop loop").await;
    let mut wrong = vec!["nowhere", "file", "loop", "/nowhere/else"];
    // Root may enter any.
    if !rung.is_none() {
        wrong.push("closed");
    }
    for cwd in wrong {
        let result = server.run(0, json!({ "command": "echo ran", "cwd": cwd })).await;
        assert_eq!(
            (&result["ended"], &result["exit_code"]),
            (&json!("exited"), &json!(126)),
            "{result}"
        );
        assert_eq!((&result["caused_by"], &result["output"]), (&json!("policy"), &json!("")));
        assert!(result["error"].as_str().unwrap().contains(cwd), "{result}");
    }
    assert_eq!(server.output(0, "chmod 700 closed; echo works").await, "works");
}

async fn what_no_environment_can_hold_is_refused_and_nothing_runs(rung: &'static Rung) {
    let server = Server::start(rung);
    let long = "x".repeat(200_000);
    for args in [
        json!({ "command": "touch ran", "env": { "": "x" } }),
        json!({ "command": "touch ran", "env": { "A=B": "x" } }),
        json!({ "command": "touch ran", "env": { "A\0": "x" } }),
        json!({ "command": "touch ran", "env": { "A": "x\0" } }),
        json!({ "command": "touch ran", "env": { "A": long } }),
        json!({ "command": "touch ran", "cwd": "" }),
        json!({ "command": "touch ran", "cwd": "a\0b" }),
        json!({ "command": "touch ran", "cwd": long }),
    ] {
        let body = json!({ "tool": "bash", "args": args }).to_string();
        let (status, problem) = server.post("/v1/slots/slot_0/execute", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(
            (&problem["code"], &problem["caused_by"]),
            (&json!("invalid"), &json!("client"))
        );
    }
    assert_eq!(server.output(0, "ls").await, "");
}
