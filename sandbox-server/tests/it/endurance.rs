//! What a server lives through: bombs beside others' work, clients that leave, a machine that has
//! run out of something, and being told to stop in the middle of it all.

use crate::{
    host::{mark, marked, until, until_within},
    http::{bash, call, write_file},
    rung::{ANY, Rung, scenarios},
    server::{LIMIT, Server, Setup},
};
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::json;
use slotmux_protocol::atropos::SlotResult;
use std::{fs, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

scenarios! {
    everywhere: [
        resets_that_race_calls_are_answered_and_the_slot_works,
        a_client_that_leaves_in_the_middle_costs_the_server_nothing,
        stopping_in_the_middle_of_many_calls_answers_each,
        a_reset_while_it_stops_is_answered,
    ]
    // Without walls root's processes have no limit but a cgroup's: a bomb would take the machine.
    behind_walls: [
        bombs_in_one_slot_do_not_stop_the_others,
    ]
}

const LIMITS: [&str; 6] =
    ["--memory-bytes-max", "134217728", "--processes-max", "64", "--disk-bytes-max", "67108864"];

/// Of fifty calls to the neighbour, one after another.
async fn median(server: &Server) -> Duration {
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        // Of the shell itself: where slots share a user they share its count of processes.
        assert_eq!(server.output(1, "echo works").await, "works");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn bombs_in_one_slot_do_not_stop_the_others(rung: &'static Rung) {
    let server = Server::with(rung, Setup { args: &LIMITS, ..Setup::default() });
    if server.get("/health").await["limits_by"]["processes"] == "nothing" {
        println!("not here: nothing holds the processes of root on this rung");
        return;
    }
    let calm = median(&server).await;
    for (name, bomb) in [
        ("processes", "bomb() { bomb | bomb & }; bomb; sleep 100"),
        ("memory", "for i in 1 2 3 4; do head -c 1G /dev/zero | tail > /dev/null & done; wait"),
        (
            "disk",
            "i=0; while head -c 1M /dev/zero > f$i; do i=$((i + 1)); [ $i -lt 300 ] || i=0; done; sleep 100",
        ),
        ("output", "yes & yes >&2 & cat /dev/zero"),
    ] {
        let (bombed, beside) = tokio::join!(server.bash_within(0, bomb, 2.0), median(&server));
        assert_ne!(bombed.metadata["caused_by"], "infra", "{name}: {bombed:?}");
        println!("{name} on {}: {beside:?} beside it, {calm:?} alone", rung.name);
        // Two processors that others want as well: told apart is slow and stuck. How fast they are
        // is for benchmarks.
        assert!(beside < Duration::from_secs(5), "{name}: {beside:?} instead of {calm:?}");
        assert!(server.reset(0).await.success, "{name}");
        assert_eq!(server.output(0, "ls; echo works").await, "works", "{name}");
    }
}

fn ended(result: &SlotResult) -> &str {
    result.metadata.get("ended").and_then(|it| it.as_str()).unwrap_or_default()
}

async fn resets_that_race_calls_are_answered_and_the_slot_works(rung: &'static Rung) {
    let server = Server::start(rung);
    for round in 0..20 {
        let calls = (0..4).map(|number| {
            let command = format!("touch {number}; sleep 0.0{}; ls | wc -l", (round + number) % 5);
            bash(0, &command)
        });
        let file = write_file(0, "file", "x");
        let (results, written, reset) =
            tokio::join!(server.batch(calls.collect()), server.call(file), server.reset(0));
        assert!(reset.success, "{reset:?}");
        assert!(written.success || !written.error.is_empty(), "{written:?}");
        for result in results {
            let whole = result.success && ended(&result) == "exited";
            let cut = !result.success && !result.error.is_empty();
            assert!(whole || cut, "{result:?}");
        }
    }
    assert!(server.reset(0).await.success);
    assert_eq!(server.output(0, "ls -A; echo works").await, "works");
}

async fn a_client_that_leaves_in_the_middle_costs_the_server_nothing(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let descriptors = || {
        let dir = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
        // Only root may look; others see none before and none after.
        fs::read_dir(dir).into_iter().flatten().count()
    };
    server.output(0, "true").await;
    let before = descriptors();
    for round in 0..10 {
        let command =
            format!("echo begun; : > begun{round}; head -c 3000000 /dev/zero; sleep 0.2; : {mark}");
        let body = bash(0, &command).to_string();
        let mut stream = TcpStream::connect(&*server.authority).await.unwrap();
        let head = format!(
            "POST /execute HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let begun = server.workspace(0).join(format!("begun{round}"));
        until("it runs", || begun.exists()).await;
        drop(stream);
    }
    // What was begun is seen through, in turn; then nothing is left of it.
    until_within(LIMIT, "the slot is idle", async || !server.is_executing(0).await).await;
    until("no process is left", || marked(&mark).is_empty()).await;
    until("no descriptor is left", || descriptors() <= before + 2).await;
    assert_eq!(server.output(0, "ls | wc -l").await, "10");
}

async fn stopping_in_the_middle_of_many_calls_answers_each(rung: &'static Rung) {
    let setup = Setup { slots: 4, args: &["--grace-s", "0.5"], ..Setup::default() };
    let mut server = Server::with(rung, setup);
    let processes = server.processes();
    let mark = mark();
    // On each slot one that ends in time and one that does not, and on two more that wait.
    let quick = |slot| {
        bash(
            slot,
            &format!(": {mark}; touch here; until [ -e go ]; do sleep 0.01; done; echo quick"),
        )
    };
    let slow = |slot| bash(slot, &format!("touch here; sleep 3000.{mark}"));
    let calls = [
        vec![quick(0)],
        vec![quick(1)],
        vec![slow(2), bash(2, "echo late")],
        vec![slow(3), bash(3, "echo late")],
    ];
    let answers = futures_util::future::join_all(calls.map(|it| server.batch(it)));
    let (answers, ()) = tokio::join!(answers, async {
        for slot in 0..4 {
            until("it runs", || server.workspace(slot).join("here").exists()).await;
        }
        until_within(LIMIT, "the others wait", async || {
            let slots = server.get("/slots").await;
            slots["slots"][2]["queued"] == 2 && slots["slots"][3]["queued"] == 2
        })
        .await;
        server.signal(Signal::TERM);
        for slot in 0..2 {
            fs::write(server.workspace(slot).join("go"), "").unwrap();
        }
    });
    for answer in &answers[..2] {
        assert_eq!(answer[0].output, "quick", "{answer:?}");
    }
    for answer in &answers[2..] {
        assert_eq!(ended(&answer[0]), "cancelled", "{answer:?}");
        assert_eq!(answer[0].metadata["caused_by"], "infra", "{answer:?}");
        assert!(!answer[1].success && !answer[1].error.is_empty(), "{answer:?}");
    }
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&processes);
    assert_eq!(marked(&mark), [0; 0]);
}

async fn a_reset_while_it_stops_is_answered(rung: &'static Rung) {
    let mut server = Server::with(rung, Setup { args: &["--grace-s", "5"], ..Setup::default() });
    let processes = server.processes();
    let here = server.workspace(0).join("here");
    // Sent on a connection that there is already: none is taken any more.
    let mut stream = TcpStream::connect(&*server.authority).await.unwrap();
    let (running, ()) = tokio::join!(server.bash(0, "touch here; sleep 3000"), async {
        until("it runs", || here.exists()).await;
        let body = json!({ "slot_id": "slot_0" }).to_string();
        let head = format!(
            "POST /reset HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        server.signal(Signal::TERM);
        stream.write_all(body.as_bytes()).await.unwrap();
    });
    // Whoever was first: the call was ended by somebody who is named.
    assert_eq!(ended(&running), "cancelled", "{running:?}");
    assert!(!running.error.is_empty(), "{running:?}");
    let mut told = String::new();
    let _ = tokio::time::timeout(LIMIT, stream.read_to_string(&mut told)).await.expect("an end");
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 "), "{told}");
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&processes);
}

#[tokio::test]
async fn a_server_without_free_descriptors_answers_again_when_it_has_some() {
    let server = Server::start(&ANY);
    server.output(0, "true").await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero()));
    let limits = limits.unwrap();
    let line = limits.lines().find_map(|it| it.strip_prefix("Max open files")).unwrap();
    let maximum = line.split_whitespace().nth(1).unwrap().parse().ok();
    let limit = Rlimit { current: Some(48), maximum };
    let before = prlimit(Some(server.pid()), Resource::Nofile, limit).unwrap();
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(TcpStream::connect(&*server.authority).await.unwrap());
    }
    // Whatever is answered meanwhile is an answer, and not a wrong one.
    let mut call = call(0, "bash", json!({ "command": "echo works" }));
    call["timeout"] = 2.0.into();
    let url = format!("http://{}/execute", server.authority);
    let meanwhile = server.http.post(url).body(call.to_string()).send();
    if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(3), meanwhile).await {
        let text = answer.text().await.unwrap_or_default();
        assert!(text.contains("works") || text.contains("\"success\":false"), "{text}");
    }
    drop(held);
    prlimit(Some(server.pid()), Resource::Nofile, before).unwrap();
    until_within(LIMIT, "it answers again", async || {
        let health = server.http.get(format!("http://{}/health", server.authority));
        health.send().await.is_ok()
    })
    .await;
    assert_eq!(server.output(1, "echo works").await, "works");
    assert!(server.reset(0).await.success);
    assert_eq!(server.output(0, "echo works").await, "works");
}
