//! Clients, and slots, that try to keep the server from answering others.

use crate::{
    host::until_within,
    rung::{ANY, Rung, scenarios},
    server::{LIMIT, Server, Setup},
};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

scenarios! {
    everywhere: [
        a_file_that_is_written_all_the_time_holds_nobody_else_up,
        a_file_that_is_leased_holds_nobody_else_up,
    ]
}

/// Half a request, and all the patience there is.
async fn half(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.authority).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: ").await.unwrap();
    stream
}

#[tokio::test]
async fn half_sent_requests_hold_others_up_for_no_longer_than_heads_are_waited_for() {
    let server = Server::start(&ANY);
    // More than there are seats.
    let halves = join_all((0..1_100).map(|_| half(&server))).await;
    let begun = Instant::now();
    let health = timeout(LIMIT, server.get("/health")).await.expect("health is answered");
    assert_eq!(health["status"], "ok");
    println!("after {:?}", begun.elapsed());
    // Those that had a seat have lost it.
    let mut first = halves.into_iter().next().unwrap();
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, first.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn half_sent_requests_within_the_limit_hold_nobody_up() {
    let server = Server::start(&ANY);
    let _halves = join_all((0..500).map(|_| half(&server))).await;
    let health = timeout(LIMIT, server.get("/health")).await;
    assert_eq!(health.expect("health is answered")["status"], "ok");
    assert_eq!(server.output(0, "echo works").await, "works");
}

/// Nobody is held up, until `others` are done or some time is over.
async fn answers_meanwhile(server: &Server, others: impl Future<Output = ()>) {
    let watched = async {
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            let begun = Instant::now();
            server.get("/health").await;
            let took = begun.elapsed();
            assert!(took < LIMIT, "/health took {took:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = watched => {}
        () = async { tokio::join!(others, std::future::pending::<()>()); } => {}
    }
}

async fn a_file_that_is_written_all_the_time_holds_nobody_else_up(rung: &'static Rung) {
    let server = Server::start(rung);
    let hammer = "for i in 1 2 3 4; do (while :; do \
        dd if=/dev/zero of=big bs=16M count=4 oflag=direct conv=notrunc || sleep 0.1; done) \
        > /dev/null 2>&1 & done";
    assert!(server.bash(0, hammer).await.success);
    until_within(LIMIT, "it is written", async || server.workspace(0).join("big").exists()).await;
    let content = "x".repeat(1 << 20);
    let writes = async {
        join_all((0..8).map(|_| server.write(0, "big", &content))).await;
    };
    answers_meanwhile(&server, writes).await;
    assert!(server.reset(0).await.success);
}

/// A lease makes others wait until it is given up, or for the 45 seconds that the kernel allows.
async fn a_file_that_is_leased_holds_nobody_else_up(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let lease = server.probe_command("lease", "file");
    assert!(server.bash(0, &format!("{lease} > log 2>&1 &")).await.success);
    let leased = server.workspace(0).join("leased");
    until_within(LIMIT, "it is leased", async || leased.exists()).await;
    let both = async {
        tokio::join!(
            join_all((0..4).map(|_| server.read(0, "file"))),
            join_all((0..4).map(|_| server.write(0, "file", "x"))),
        );
    };
    answers_meanwhile(&server, both).await;
    assert_eq!(server.output(1, "echo works").await, "works");
    let reset = timeout(LIMIT, server.reset(0)).await.expect("it is answered");
    assert!(reset.success, "{reset:?}");
}
