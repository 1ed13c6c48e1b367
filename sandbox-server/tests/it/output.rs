//! What commands print and how they end.

use crate::{
    http::bash,
    rung::{Rung, scenarios},
    server::Server,
};

scenarios! {
    everywhere: [
        exit_codes_are_exact,
        a_signal_shows_as_a_negative_exit_code,
        streams_are_joined_as_the_wire_says,
        output_that_is_not_utf8_is_replaced,
        long_output_is_cut_and_says_so,
        a_hundred_megabytes_are_cut_and_not_waited_for_in_memory,
        nothing_comes_from_stdin,
        a_command_that_cannot_be_started_is_answered,
        a_command_is_a_command_whatever_it_begins_with,
        commands_begin_in_an_empty_workspace_that_is_their_home,
    ]
}

async fn exit_codes_are_exact(rung: &'static Rung) {
    let server = Server::start(rung);
    let codes = [0, 1, 2, 3, 42, 100, 124, 125, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255];
    let results =
        server.batch(codes.iter().map(|it| bash(0, &format!("exit {it}"))).collect()).await;
    for (code, result) in codes.into_iter().zip(results) {
        let error = if code == 0 { String::new() } else { format!("Exit code: {code}") };
        assert_eq!(result.metadata["exit_code"], code, "{result:?}");
        assert_eq!((result.success, result.error), (code == 0, error));
        assert_eq!(result.metadata["ended"], "exited");
        assert_eq!(result.metadata["caused_by"], "policy");
        assert_eq!(result.metadata["sandboxed"], !rung.is_none());
    }
}

async fn a_signal_shows_as_a_negative_exit_code(rung: &'static Rung) {
    let server = Server::start(rung);
    for (name, number) in [("TERM", 15), ("SEGV", 11), ("KILL", 9), ("PIPE", 13), ("INT", 2)] {
        let result = server.bash(0, &format!("kill -{name} $$")).await;
        assert_eq!(result.metadata["exit_code"], -number, "{name}: {result:?}");
        assert_eq!(result.metadata["ended"], "signaled");
        assert!(!result.success && !result.error.is_empty());
    }
}

async fn streams_are_joined_as_the_wire_says(rung: &'static Rung) {
    let server = Server::start(rung);
    for (command, expected) in [
        ("echo out; echo err >&2", "out\n\n[stderr]\nerr"),
        ("printf out; printf err >&2", "out\n[stderr]\nerr"),
        ("echo err >&2", "err"),
        ("echo; echo '  two words  '; echo", "two words"),
        ("true", ""),
    ] {
        assert_eq!(server.output(0, command).await, expected, "{command}");
    }
}

async fn output_that_is_not_utf8_is_replaced(rung: &'static Rung) {
    let server = Server::start(rung);
    let output = server.output(0, r"printf '\377\376ok\303'; printf '\303\251\0x'").await;
    assert_eq!(output, "\u{fffd}\u{fffd}ok\u{fffd}é\0x");
}

async fn long_output_is_cut_and_says_so(rung: &'static Rung) {
    let server = Server::start(rung);
    let printed =
        |count: u32| format!("printf 'é%.0s' $(seq {count}); printf 'e%.0s' $(seq {count}) >&2");
    let whole = server.output(0, &printed(50_000)).await;
    assert_eq!(whole, format!("{}\n[stderr]\n{}", "é".repeat(50_000), "e".repeat(50_000)));
    let cut = server.output(0, &printed(50_001)).await;
    let mark = "\n... (output truncated)";
    let expected = format!("{}{mark}\n[stderr]\n{}{mark}", "é".repeat(50_000), "e".repeat(50_000));
    assert_eq!(cut, expected);
}

async fn a_hundred_megabytes_are_cut_and_not_waited_for_in_memory(rung: &'static Rung) {
    let server = Server::start(rung);
    let output = server.output(0, "head -c 100000000 /dev/zero | tr '\\0' x; echo END").await;
    assert_eq!(output, format!("{}\n... (output truncated)", "x".repeat(50_000)));
}

async fn nothing_comes_from_stdin(rung: &'static Rung) {
    let server = Server::start(rung);
    assert_eq!(server.output(0, "cat; read -r line || echo end").await, "end");
}

async fn a_command_is_a_command_whatever_it_begins_with(rung: &'static Rung) {
    let server = Server::start(rung);
    for command in ["--version", "-x", "+x", "-c 'echo option'", "--", "-", "--help; exit 127"] {
        let result = server.bash(0, command).await;
        assert_eq!(result.metadata["exit_code"], 127, "{command}: {result:?}");
        assert!(!result.success, "{command}: {result:?}");
    }
    let result = server.bash(0, "-x; echo works").await;
    assert!(result.success && result.output.starts_with("works"), "{result:?}");
}

async fn a_command_that_cannot_be_started_is_answered(rung: &'static Rung) {
    let server = Server::start(rung);
    let long = server.bash(0, &format!("true {}", "x".repeat(1 << 20))).await;
    assert_eq!(long.metadata["exit_code"], 126, "{long:?}");
    let nul = server.bash(0, "echo a\0b").await;
    assert_eq!(nul.metadata["exit_code"], 126, "{nul:?}");
    let empty = server.bash(0, "").await;
    assert!(empty.success, "{empty:?}");
    let syntax = server.bash(0, "if then").await;
    assert_eq!(syntax.metadata["exit_code"], 2, "{syntax:?}");
    let unknown = server.bash(0, "no-such-command-here").await;
    assert_eq!(unknown.metadata["exit_code"], 127, "{unknown:?}");
}

async fn commands_begin_in_an_empty_workspace_that_is_their_home(rung: &'static Rung) {
    let server = Server::start(rung);
    let output = server.output(0, "ls -A; [ \"$PWD\" = \"$HOME\" ] && pwd -P").await;
    let expected = if rung.is_namespaces() {
        "/workspace".to_owned()
    } else {
        server.workspace(0).display().to_string()
    };
    assert_eq!(output, expected);
    assert_eq!(server.output(0, "cd /; umask").await, "0022");
}
