//! Terminal sessions, as who types in them sees them.

use crate::{
    host::{mark, marked, until},
    http::call,
    rung::{ANY, Rung, scenarios},
    server::{LIMIT, Server},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use slotmux_protocol::ToolResult;
use std::time::Duration;
use tokio::time::Instant;

scenarios! {
    everywhere: [
        a_shell_is_typed_to_and_its_screen_read,
        a_wait_ends_when_the_command_has_and_tells_its_exit_code,
        a_wait_that_runs_out_is_a_success_and_the_session_goes_on,
        several_lines_are_waited_for_together,
        a_program_that_reads_its_input_is_talked_to,
        control_c_ends_what_runs_and_the_shell_stays,
        a_full_screen_program_has_the_screen_and_gives_it_back,
        a_program_that_asks_the_terminal_is_answered,
        the_program_hears_of_a_new_size,
        sessions_do_not_know_of_one_another,
        a_flood_in_one_slot_is_not_felt_in_another,
        a_program_that_does_not_read_does_not_hold_a_call_beyond_its_time,
        an_ended_program_is_said_to_be_and_its_screen_can_be_read,
        sessions_end_with_a_kill_and_with_a_reset,
        a_stopped_session_takes_its_processes_with_it,
    ]
}

impl Server {
    async fn terminal_within(&self, slot: u16, args: Value, timeout_s: f64) -> ToolResult {
        let path = format!("/v1/slots/slot_{slot}/execute");
        let body = json!({ "tool": "terminal", "args": args, "timeout_s": timeout_s });
        let (status, body) = self.post(&path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{args}: {body}");
        serde_json::from_value(body).unwrap()
    }

    async fn terminal(&self, slot: u16, args: Value) -> ToolResult {
        self.terminal_within(slot, args, 20.0).await
    }

    /// What a call says that has to go well.
    async fn told(&self, slot: u16, args: Value) -> (String, Value) {
        let result = self.terminal(slot, args.clone()).await;
        assert!(result.success, "{args}: {result:?}");
        (result.output, result.data.unwrap())
    }

    /// Types a line, waits until the shell is done with it, and returns what was printed.
    async fn line(&self, slot: u16, line: &str) -> (String, Value) {
        let keys = json!([line, "Enter"]);
        let sent =
            self.told(slot, json!({"action": "send_keys", "keys": keys, "wait": true})).await;
        assert_eq!(sent.1["done"], true, "{line}: {sent:?}");
        sent
    }

    async fn screen(&self, slot: u16) -> String {
        self.told(slot, json!({"action": "capture"})).await.0
    }

    /// Waits until it is there.
    async fn until_shown(&self, slot: u16, text: &str) {
        let began = Instant::now();
        loop {
            let screen = self.screen(slot).await;
            if screen.contains(text) {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{text:?} is not shown:\n{screen}");
        }
    }

    async fn start_shell(&self, slot: u16) {
        let (screen, data) = self.told(slot, json!({"action": "start"})).await;
        assert_eq!((&*screen, &data["done"], &data["running"]), ("$", &json!(true), &json!(true)));
    }
}

async fn a_shell_is_typed_to_and_its_screen_read(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let (printed, data) = server.line(0, "echo one; pwd; tty").await;
    assert!(printed.contains("\r\none\r\n") && printed.ends_with("$ "), "{printed:?}");
    assert!(!printed.contains("6973") && !printed.contains("not a tty"), "{printed:?}");
    assert_eq!((&data["session"], &data["exit_code"]), (&json!("main"), &json!(0)));
    let screen = server.screen(0).await;
    assert!(screen.starts_with("$ echo one; pwd; tty\none\n"), "{screen:?}");
    let (read, data) = server.told(0, json!({"action": "read"})).await;
    assert!(read.ends_with(&printed), "{read:?} {printed:?}");
    assert_eq!(data["next_offset"], read.len());
    let (read, _) = server.told(0, json!({"action": "read"})).await;
    assert_eq!(read, "");
    let again = json!({"action": "read", "offset": 0, "max_bytes": 5});
    let (read, data) = server.told(0, again).await;
    assert_eq!((&*read, &data["truncated"]), ("$ ech", &json!(true)));
    let (listed, _) = server.told(0, json!({"action": "list"})).await;
    assert_eq!(listed, "main: 80x24, runs\n");
}

async fn a_wait_ends_when_the_command_has_and_tells_its_exit_code(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    for (line, code, text) in [
        ("(sleep 0.05; exit 7)", 7, ""),
        ("true", 0, ""),
        ("", 0, ""),
        ("false", 1, ""),
        ("sleep 0.05; echo late", 0, "late\r\n"),
        ("no-such-command 2> /dev/null", 127, ""),
        ("set -x; false", 1, ""),
        ("set +x -e; true; set +e", 0, ""),
        ("PS1='mine> '", 0, "mine> "),
        ("kill -9 $BASHPID & wait $!", 137, ""),
    ] {
        let (printed, data) = server.line(0, line).await;
        assert!(printed.contains(text), "{line}: {printed:?}");
        assert_eq!(data["exit_code"], code, "{line}: {printed:?}");
    }
    let (printed, _) = server.line(0, "env | grep -c -e PS1 -e PROMPT_COMMAND -e HISTFILE=.").await;
    assert!(printed.contains("\r\n0\r\n"), "{printed:?}");
}

async fn a_wait_that_runs_out_is_a_success_and_the_session_goes_on(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let keys = json!(["read x; echo got $x", "Enter"]);
    let sent = json!({"action": "send_keys", "keys": keys, "wait": true, "max_wait_ms": 100});
    let (_, data) = server.told(0, sent).await;
    assert_eq!(data["done"], false);
    let wait = json!({"action": "wait"});
    let result = server.terminal_within(0, wait.clone(), 0.1).await;
    assert_eq!(result.ended, slotmux_protocol::Ended::Timeout, "{result:?}");
    assert!(result.error.contains("`main` goes on"), "{result:?}");
    let (_, data) = server.told(0, json!({"action": "wait", "max_wait_ms": 50})).await;
    assert_eq!((&data["done"], &data["running"]), (&json!(false), &json!(true)));
    let (printed, data) = server.line(0, "it").await;
    assert!(printed.contains("got it"), "{printed:?}");
    assert_eq!(data["done"], true);
    let (_, data) = server.told(0, wait).await;
    assert_eq!(data["done"], true);
    // A shortest time is kept, also where nothing has to be waited for.
    let began = Instant::now();
    server.told(0, json!({"action": "wait", "min_wait_ms": 150})).await;
    assert!(began.elapsed() >= Duration::from_millis(150));
}

async fn several_lines_are_waited_for_together(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let lines = "sleep 0.02\necho a-$((1+1))\nfor i in 1 2; do\necho b-$i\nsleep 0.02\ndone\n\
                 cat <<E\nhere\nE\n(exit 3)\n";
    for _ in 0..5 {
        let sent = json!({"action": "send_keys", "keys": lines, "literal": true, "wait": true});
        let (printed, data) = server.told(0, sent).await;
        let last = printed.rfind("(exit 3)").unwrap_or_default();
        for text in ["a-2\r\n", "b-2\r\n", "here\r\n"] {
            assert!(printed.rfind(text).is_some_and(|at| at < last), "{text:?}: {printed:?}");
        }
        assert_eq!((&data["done"], &data["exit_code"]), (&json!(true), &json!(3)), "{printed:?}");
    }
}

async fn a_program_that_reads_its_input_is_talked_to(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let keys = json!(["while read -p 'more> ' x; do echo \"<$x>\"; done", "Enter"]);
    server.told(0, json!({"action": "send_keys", "keys": keys})).await;
    server.until_shown(0, "\nmore>").await;
    server
        .told(0, json!({"action": "send_keys", "keys": ["Enter", "Tab", "Enter"], "literal": true}))
        .await;
    server.told(0, json!({"action": "send_keys", "keys": "Enter"})).await;
    server.until_shown(0, "<EnterTabEnter>").await;
    let (_, data) =
        server.told(0, json!({"action": "send_keys", "keys": "C-d", "wait": true})).await;
    assert_eq!(data["done"], true);
    server.told(0, json!({"action": "send_keys", "keys": ["echo é你", "BSpace", "🎉", "Enter"], "wait": true})).await;
    let screen = server.screen(0).await;
    assert!(screen.contains("\né🎉\n"), "{screen}");
}

async fn control_c_ends_what_runs_and_the_shell_stays(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let mark = mark();
    let keys = json!([format!("sleep 3000.{mark}"), "Enter"]);
    server.told(0, json!({"action": "send_keys", "keys": keys})).await;
    until("it runs", || marked(&mark).len() == 1).await;
    let (_, data) =
        server.told(0, json!({"action": "send_keys", "keys": "C-c", "wait": true})).await;
    assert_eq!((&data["done"], &data["exit_code"]), (&json!(true), &json!(130)));
    until("it is gone", || marked(&mark).is_empty()).await;
    server.told(0, json!({"action": "send_keys", "keys": "half"})).await;
    server.until_shown(0, "half").await;
    let (_, data) =
        server.told(0, json!({"action": "send_keys", "keys": "C-c", "wait": true})).await;
    assert_eq!(data["done"], true);
    let (printed, _) = server.line(0, "echo still here").await;
    assert!(printed.contains("\r\nstill here\r\n"), "{printed:?}");
}

async fn a_full_screen_program_has_the_screen_and_gives_it_back(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    server.line(0, "echo before").await;
    // As vi does: another screen, its own cursor keys, one key at a time.
    let editor = r#"vi() { stty -echo -icanon; printf '\e[?1049h\e[?1h\e[2J\e[5;3Hfile\e]2;editor\a'
        while IFS= read -rsn1 k && [ "$k" != q ]; do printf '\e[7;1H\e[K%q' "$k"; done
        stty sane; printf '\e[?1l\e[?1049l'; }"#;
    let sent = json!({"action": "send_keys", "keys": format!("{editor}\n"), "wait": true});
    server.told(0, sent).await;
    server.told(0, json!({"action": "send_keys", "keys": ["vi", "Enter"]})).await;
    server.until_shown(0, "  file").await;
    let (screen, data) = server.told(0, json!({"action": "capture"})).await;
    assert_eq!(screen, "\n\n\n\n  file");
    assert_eq!((&data["alternate_screen"], &data["title"]), (&json!(true), &json!("editor")));
    assert_eq!(data["cursor"], json!({"row": 4, "col": 6, "hidden": false}));
    server.told(0, json!({"action": "send_keys", "keys": "Up"})).await;
    // The last byte of `ESC O A`.
    server.until_shown(0, "file\n\nA").await;
    let (_, data) =
        server.told(0, json!({"action": "send_keys", "keys": "q", "max_wait_ms": 1})).await;
    assert_eq!(data["session"], "main");
    server.until_shown(0, "before").await;
    let (_, data) = server.told(0, json!({"action": "wait"})).await;
    assert_eq!((&data["done"], &data["alternate_screen"]), (&json!(true), &json!(false)));
    assert!(!server.screen(0).await.contains("file\n"));
}

async fn a_program_that_asks_the_terminal_is_answered(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let ask = r"IFS=';' read -rs -d R -p $'\e[6n' row col; echo; echo at ${row#*[},$col";
    let (printed, _) = server.line(0, &format!("clear; {ask}")).await;
    assert!(printed.contains("at 1,1\r\n"), "{printed:?}");
    let ask = r"read -rs -d c -p $'\e[c' x; echo; echo it ${x#*[} c";
    let (printed, _) = server.line(0, ask).await;
    assert!(printed.contains("it ?1;2 c\r\n"), "{printed:?}");
}

async fn the_program_hears_of_a_new_size(rung: &'static Rung) {
    let server = Server::start(rung);
    let start = json!({"action": "start", "rows": 30, "cols": 100});
    server.told(0, start).await;
    let (printed, _) = server.line(0, "stty size").await;
    assert!(printed.contains("\r\n30 100\r\n"), "{printed:?}");
    server.line(0, "trap 'echo winch $(stty size)' WINCH").await;
    let (_, data) = server.told(0, json!({"action": "resize", "rows": 10, "cols": 44})).await;
    assert_eq!((&data["rows"], &data["cols"]), (&json!(10), &json!(44)));
    server.line(0, "").await;
    server.until_shown(0, "winch 10 44").await;
    for (rows, cols) in [(0, 80), (24, 0), (501, 80), (24, 1_001)] {
        let resize = json!({"action": "resize", "rows": rows, "cols": cols});
        let result = server.terminal(0, resize).await;
        assert!(!result.success && result.error.contains("1 to 500"), "{result:?}");
    }
    let (_, data) = server.told(0, json!({"action": "resize", "rows": 500, "cols": 1_000})).await;
    assert_eq!(data["cols"], 1_000);
}

async fn sessions_do_not_know_of_one_another(rung: &'static Rung) {
    let server = Server::start(rung);
    for number in 0..8 {
        let session = format!("s-{number}");
        let start = json!({"action": "start", "session": session});
        server.told(0, start).await;
        let keys = json!([format!("x={number}; cd /; echo $x"), "Enter"]);
        let sent = json!({"action": "send_keys", "session": session, "keys": keys, "wait": true});
        let (printed, _) = server.told(0, sent).await;
        assert!(printed.contains(&format!("\r\n{number}\r\n")), "{printed:?}");
    }
    let result = server.terminal(0, json!({"action": "start", "session": "s-8"})).await;
    assert!(!result.success && result.error.contains("8 sessions"), "{result:?}");
    let result = server.terminal(0, json!({"action": "start", "session": "s-3"})).await;
    assert!(!result.success && result.error.contains("running already"), "{result:?}");
    let keys = json!({"action": "send_keys", "session": "s-3", "keys": ["echo $x", "Enter"], "wait": true});
    let (printed, _) = server.told(0, keys).await;
    assert!(printed.contains("\r\n3\r\n"), "{printed:?}");
    for name in ["", "a/b", "a b", "é", &"x".repeat(33)] {
        let result = server.terminal(0, json!({"action": "start", "session": name})).await;
        assert!(!result.success && result.error.contains("name"), "{name}: {result:?}");
    }
    let result = server.terminal(1, json!({"action": "capture", "session": "s-3"})).await;
    assert!(!result.success && result.error.contains("no session `s-3`"), "{result:?}");
    let (_, data) = server.told(0, json!({"action": "list"})).await;
    assert_eq!(data["sessions"].as_array().map(Vec::len), Some(8));
}

async fn a_flood_in_one_slot_is_not_felt_in_another(rung: &'static Rung) {
    let server = Server::start(rung);
    for session in ["a", "b", "c"] {
        let flood = r"while :; do printf '%0200d\e[2J\e[999S\e[65535b' 1 2 3 4 5 6 7; done";
        let start = json!({"action": "start", "session": session, "command": flood,
                           "rows": 500, "cols": 1_000});
        server.told(0, start).await;
    }
    server.start_shell(1).await;
    let began = Instant::now();
    for number in 0..10 {
        let (printed, _) = server.line(1, &format!("echo {number}")).await;
        assert!(printed.contains(&format!("\r\n{number}\r\n")), "{printed:?}");
        let (_, data) = server.told(0, json!({"action": "capture", "session": "a"})).await;
        assert_eq!(data["running"], true);
    }
    assert!(began.elapsed() < LIMIT);
    let entire = json!({"action": "capture", "session": "b", "entire": true, "max_bytes": 5_000});
    let (text, _) = server.told(0, entire).await;
    assert!(text.len() <= 5_000);
    let read = json!({"action": "read", "session": "c", "max_bytes": 7});
    let began = Instant::now();
    loop {
        let (part, data) = server.told(0, read.clone()).await;
        assert!(part.len() <= 7, "{part:?} {data}");
        if data["truncated"] == true {
            break;
        }
        assert!(began.elapsed() < LIMIT, "it prints nothing");
    }
}

async fn a_program_that_does_not_read_does_not_hold_a_call_beyond_its_time(rung: &'static Rung) {
    let server = Server::start(rung);
    let start = json!({"action": "start", "command": "stty -icanon -echo; echo ready; sleep 3000"});
    server.told(0, start).await;
    server.until_shown(0, "ready").await;
    let keys = "x".repeat(200_000);
    let sent = json!({"action": "send_keys", "keys": keys, "literal": true});
    let result = server.terminal_within(0, sent, 0.3).await;
    assert_eq!(result.ended, slotmux_protocol::Ended::Timeout, "{:?}", result.error);
    assert!(result.error.contains("of 200000 bytes were typed"), "{:?}", result.error);
    let too_many = json!({"action": "send_keys", "keys": "x".repeat(300_000)});
    let result = server.terminal(0, too_many).await;
    assert!(!result.success && result.error.contains("at most 262144"), "{:?}", result.error);
    let (_, data) = server.told(0, json!({"action": "stop"})).await;
    assert_eq!((&data["running"], &data["signal"]), (&json!(false), &json!(9)));
}

async fn an_ended_program_is_said_to_be_and_its_screen_can_be_read(rung: &'static Rung) {
    let server = Server::start(rung);
    let start = json!({"action": "start", "command": "echo last words; exit 5", "wait": true});
    let (screen, data) = server.told(0, start.clone()).await;
    assert_eq!((&*screen, &data["exit_code"]), ("last words", &json!(5)));
    assert_eq!((&data["running"], &data["done"]), (&json!(false), &json!(true)));
    assert_eq!(data["end"], "exited with code 5");
    assert_eq!(server.screen(0).await, "last words");
    let result = server.terminal(0, json!({"action": "send_keys", "keys": "x"})).await;
    assert!(!result.success && result.error.contains("exited with code 5"), "{result:?}");
    let (_, data) = server.told(0, json!({"action": "wait"})).await;
    assert_eq!(data["done"], true);
    // An ended one gives its name to the next.
    let (screen, _) = server.told(0, start).await;
    assert_eq!(screen, "last words");
    server.told(0, json!({"action": "stop"})).await;
    let result = server.terminal(0, json!({"action": "capture"})).await;
    assert!(!result.success && result.error.contains("no session `main`"), "{result:?}");
    // The shell that is told to go.
    server.start_shell(0).await;
    let sent = json!({"action": "send_keys", "keys": ["exit 4", "Enter"], "wait": true});
    let (_, data) = server.told(0, sent).await;
    assert_eq!((&data["running"], &data["exit_code"]), (&json!(false), &json!(4)));
}

async fn sessions_end_with_a_kill_and_with_a_reset(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    server.line(0, "echo kept").await;
    // A time-out kills everything in the slot.
    let result = server.bash_within(0, "sleep 3000", 0.2).await;
    assert_eq!(result.metadata["ended"], "timeout", "{result:?}");
    let (_, data) = server.told(0, json!({"action": "wait"})).await;
    assert_eq!((&data["running"], &data["signal"]), (&json!(false), &json!(9)));
    assert!(server.screen(0).await.contains("kept"));
    let result = server.terminal(0, json!({"action": "send_keys", "keys": "x"})).await;
    assert!(!result.success && result.error.contains("killed by signal 9"), "{result:?}");
    assert!(server.reset(0).await.success);
    let result = server.terminal(0, json!({"action": "capture"})).await;
    assert!(!result.success && result.error.contains("no session `main`"), "{result:?}");
    server.start_shell(0).await;
    assert!(!server.screen(0).await.contains("kept"));
}

async fn a_stopped_session_takes_its_processes_with_it(rung: &'static Rung) {
    let server = Server::start(rung);
    server.start_shell(0).await;
    let mark = mark();
    server.line(0, &format!("(trap '' HUP TERM; sleep 3000.{mark}) & sleep 3000.{mark} &")).await;
    until("both run", || marked(&mark).len() >= 2).await;
    let keys = json!([format!("trap '' INT; sleep 3000.{mark}"), "Enter"]);
    server.told(0, json!({"action": "send_keys", "keys": keys})).await;
    until("all run", || marked(&mark).len() >= 3).await;
    server.told(0, json!({"action": "stop"})).await;
    until("all are gone", || marked(&mark).is_empty()).await;
    let result = server.terminal(0, json!({"action": "stop"})).await;
    assert!(!result.success && result.error.contains("no session `main`"), "{result:?}");
}

#[tokio::test]
async fn a_recording_can_be_played() {
    let server = Server::start(&ANY);
    server.start_shell(0).await;
    server.line(0, "echo \"zwölf \\\"Boxkämpfer\\\"\"").await;
    server.told(0, json!({"action": "resize", "rows": 20, "cols": 60})).await;
    let (mut cast, mut pieces) = (String::new(), 0);
    loop {
        let (text, data) = server.told(0, json!({"action": "cast", "max_bytes": 60})).await;
        if text.is_empty() {
            break;
        }
        assert!(text.ends_with('\n'));
        assert_eq!(data["dropped_bytes"], 0);
        cast.push_str(&text);
        pieces += 1;
    }
    assert!(pieces > 2);
    let mut lines = cast.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(
        (&header["version"], &header["width"], &header["height"]),
        (&json!(2), &json!(80), &json!(24))
    );
    let events = lines.collect::<Vec<_>>();
    let all = |kind: &str| {
        let of_kind = events.iter().filter(|it| it[1] == kind);
        of_kind.map(|it| it[2].as_str().unwrap()).collect::<String>()
    };
    assert!(all("o").contains("zwölf \"Boxkämpfer\"\r\n"), "{cast}");
    assert!(all("i").ends_with('\r') && all("r") == "60x20", "{cast}");
    assert!(events.is_sorted_by(|a, b| a[0].as_f64() <= b[0].as_f64()), "{cast}");
}

#[tokio::test]
async fn the_atropos_wire_has_it_as_tmux() {
    let server = Server::start(&ANY);
    let tmux = async |args: Value| server.call(call(0, "tmux", args)).await;
    let result = tmux(json!({"action": "capture"})).await;
    assert!(!result.success && result.error.contains("start it first"), "{result:?}");
    let result = tmux(json!({"action": "start", "pane_width": 90, "pane_height": 20})).await;
    assert!(result.success, "{result:?}");
    assert_eq!(result.metadata["cols"], 90);
    let keys = json!(["echo in tmux", "Enter"]);
    let result =
        tmux(json!({"action": "send_keys", "keys": keys, "block": true, "max_wait_s": 15})).await;
    assert!(result.success && result.metadata["done"] == true, "{result:?}");
    let result = tmux(json!({"action": "capture", "capture_entire": true})).await;
    assert_eq!(result.output, "$ echo in tmux\nin tmux\n$", "{result:?}");
    let result = tmux(json!({"action": "stream"})).await;
    assert!(result.output.starts_with('{') && result.output.contains("in tmux"), "{result:?}");
    let rest = tmux(json!({"action": "stream"})).await;
    assert_eq!((rest.success, &*rest.output), (true, ""));
    let again = tmux(json!({"action": "stream", "reset": true})).await;
    assert_eq!(again.output, result.output);
    let result = tmux(json!({"action": "send_keys", "keys": "x", "min_wait_s": 0.05})).await;
    assert!(result.success, "{result:?}");
    let result = tmux(json!({"action": "dance"})).await;
    assert!(!result.success && result.error.contains("Invalid arguments"), "{result:?}");
    assert!(tmux(json!({"action": "stop"})).await.success);
}
