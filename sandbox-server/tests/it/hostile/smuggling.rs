//! Of clients: HTTP that two readers would read differently, and what is no HTTP.

use super::{Action, Target, target::ensure};
use crate::http::bash;

pub(super) const ACTIONS: &[Action] = &[
    Action::requests("two lengths, or a length and chunks", |it| Box::pin(lengths(it))),
    Action::requests("chunks that are none", |it| Box::pin(chunks(it))),
    Action::requests("lines that end or begin otherwise", |it| Box::pin(lines(it))),
    Action::requests("a hundred requests in one", |it| Box::pin(pipelined(it))),
    Action::requests("heads and paths over the limit", |it| Box::pin(large_heads(it))),
    Action::requests("methods and targets that there are not", |it| Box::pin(methods(it))),
    Action::requests("other protocols", |it| Box::pin(protocols(it))),
    Action::requests("a Link without a handshake", |it| Box::pin(no_handshake(it))),
    Action::requests("a Link that speaks something else", |it| Box::pin(garbage_frames(it))),
];

/// Of what was smuggled nothing is answered, let alone run.
async fn one_refusal(target: &Target, request: &str) -> Result<(), String> {
    let told = target.raw(request.as_bytes()).await?;
    let answers = told.matches("HTTP/1.1 ").count();
    let begin = request.chars().take(300).collect::<String>();
    ensure(answers <= 1 && !told.contains("workspace_dir"), || format!("{begin:?}: {told}"))?;
    ensure(told.is_empty() || told.starts_with("HTTP/1.1 4"), || format!("{begin:?}: {told}"))
}

async fn lengths(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    let smuggled = format!("GET /slots HTTP/1.1\r\nhost: h\r\n{auth}connection: close\r\n\r\n");
    for lines in [
        "content-length: 0\r\ncontent-length: 70\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -1\r\n",
        "content-length: +5\r\n",
        "content-length: 0x10\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length: 1e3\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: gzip\r\n",
    ] {
        let request = format!("POST /execute HTTP/1.1\r\nhost: h\r\n{auth}{lines}\r\n{smuggled}");
        one_refusal(target, &request).await?;
    }
    // Chunks win over a length: what follows them may be a request of its own, but then the
    // connection must not be read by the length as well.
    let request = format!(
        "POST /execute HTTP/1.1\r\nhost: h\r\n{auth}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n\
         1\r\n{{\r\n0\r\n\r\n",
        smuggled.len() + 5
    );
    let told = target.raw((request + &smuggled).as_bytes()).await?;
    ensure(told.is_empty() || told.starts_with("HTTP/1.1 4"), || told)
}

async fn chunks(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    for chunks in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-1\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n",
        "ffffffffffffffff\r\n{}\r\n",
        "2\r\n{}0\r\n\r\n",
        "\r\n\r\n",
    ] {
        let request = format!(
            "POST /execute HTTP/1.1\r\nhost: h\r\n{auth}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        );
        let mut stream = target.connect().await?;
        use tokio::io::AsyncWriteExt as _;
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        let told = super::target::read_to_end(stream).await?;
        ensure(told.is_empty() || told.starts_with("HTTP/1.1 4"), || {
            format!("{chunks:?}: {told}")
        })?;
    }
    // An extension of a chunk without an end.
    let request = format!(
        "POST /execute HTTP/1.1\r\nhost: h\r\n{auth}transfer-encoding: chunked\r\n\r\n1;{}",
        "x".repeat(200_000)
    );
    one_refusal(target, &request).await
}

async fn lines(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    for head in [
        "GET /slots HTTP/1.1\r\nhost: h\r\n folded: x\r\n",
        "GET /slots HTTP/1.1\r\nhost : h\r\n",
        "GET /slots HTTP/1.1\r\nho\0st: h\r\n",
        "GET /slots HTTP/1.1\r\nx: a\rb\r\n",
        "GET  /slots  HTTP/1.1\r\nhost: h\r\n",
        "GET /slots HTTP/9.9\r\nhost: h\r\n",
        "GET /slots\r\n",
        " GET /slots HTTP/1.1\r\nhost: h\r\n",
        "GET /sl ots HTTP/1.1\r\nhost: h\r\n",
        "GET /\u{e9} HTTP/1.1\r\nhost: h\r\n",
    ] {
        let told = target.raw(format!("{head}{auth}connection: close\r\n\r\n").as_bytes()).await?;
        let answers = told.matches("HTTP/1.").count();
        ensure(answers <= 1 && !told.contains("HTTP/1.1 5"), || format!("{head:?}: {told}"))?;
    }
    Ok(())
}

async fn pipelined(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    let requests = (0..100).map(|number| {
        let call = bash(0, &format!("echo number-{number}")).to_string();
        let close = if number == 99 { "connection: close\r\n" } else { "" };
        let length = call.len();
        let head = format!("POST /execute HTTP/1.1\r\nhost: h\r\n{auth}{close}");
        format!("{head}content-length: {length}\r\n\r\n{call}")
    });
    let all = requests.collect::<String>();
    let told = target.raw(all.as_bytes()).await?;
    let mut from = 0;
    for number in 0..100 {
        let mark = format!("\"number-{number}\"");
        let at =
            told[from..].find(&mark).ok_or_else(|| format!("{mark} is not answered in turn"))?;
        from += at;
    }
    Ok(())
}

async fn large_heads(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    for head in [
        format!("GET /{} HTTP/1.1\r\nhost: h\r\n", "x".repeat(1 << 20)),
        format!("GET /slots?{} HTTP/1.1\r\nhost: h\r\n", "a=b&".repeat(1 << 18)),
        format!("GET /health HTTP/1.1\r\nhost: h\r\n{}", "x: y\r\n".repeat(10_000)),
        format!("GET /health HTTP/1.1\r\nhost: h\r\nx: {}\r\n", "y".repeat(1 << 20)),
        format!("{} /health HTTP/1.1\r\nhost: h\r\n", "G".repeat(1 << 20)),
    ] {
        one_refusal(target, &format!("{head}{auth}connection: close\r\n\r\n")).await?;
    }
    Ok(())
}

async fn methods(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    for line in [
        "TRACE /slots",
        "CONNECT 127.0.0.1:22",
        "DELETE /slots",
        "PUT /execute",
        "GET /execute",
        "GET /reset",
        "PATCH /batch",
        "GET http://127.0.0.1:22/",
        "GET /../../etc/passwd",
        "GET /%2e%2e/%2e%2e/etc/passwd",
        "GET //slots//",
        "GET /slots/..",
        "OPTIONS *",
        "POST /health",
        "GET /slots%00",
        "PROPFIND /",
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: h\r\n{auth}connection: close\r\n\r\n");
        one_refusal(target, &request).await?;
    }
    Ok(())
}

async fn protocols(target: &Target) -> Result<(), String> {
    let greetings: [&[u8]; 6] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO localhost\r\n\r\n",
        b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0",
        b"*1\r\n$4\r\nPING\r\n\r\n",
    ];
    for greeting in greetings {
        let told = target.raw(greeting).await?;
        let refused = told.is_empty() || told.starts_with("HTTP/1.1 4");
        ensure(refused, || format!("{greeting:?}: {told}"))?;
    }
    Ok(())
}

async fn no_handshake(target: &Target) -> Result<(), String> {
    let auth = target.authorization();
    for lines in [
        "",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 1\r\nsec-websocket-key: AAAA\r\n",
        "connection: upgrade\r\nupgrade: h2c\r\nsec-websocket-version: 13\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    ] {
        let request = format!("GET /v1/link HTTP/1.1\r\nhost: h\r\n{auth}{lines}\r\n");
        let mut stream = target.connect().await?;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream.write_all(request.as_bytes()).await.map_err(|it| it.to_string())?;
        let mut answer = vec![0; 1_024];
        let read = tokio::time::timeout(crate::server::LIMIT, stream.read(&mut answer)).await;
        let read =
            read.map_err(|_| format!("{lines:?} is not answered"))?.map_err(|it| it.to_string())?;
        let told = String::from_utf8_lossy(&answer[..read]).into_owned();
        ensure(told.starts_with("HTTP/1.1 4"), || format!("{lines:?}: {told}"))?;
    }
    Ok(())
}

/// Frames that are no frames, too large, not masked, or not what a pool says.
async fn garbage_frames(target: &Target) -> Result<(), String> {
    use tokio::io::AsyncWriteExt as _;
    let head = format!(
        "GET /v1/link HTTP/1.1\r\nhost: h\r\n{}connection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        target.authorization()
    );
    let frames: [Vec<u8>; 6] = [
        vec![0xff; 100],
        // Not masked.
        vec![0x82, 4, 1, 2, 3, 4],
        // Eight exabytes to come.
        [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 20]].concat(),
        // Masked msgpack that is no message.
        vec![0x82, 0x84, 0, 0, 0, 0, 0xc1, 0xc1, 0xc1, 0xc1],
        // Text.
        vec![0x81, 0x82, 0, 0, 0, 0, b'{', b'}'],
        // A part of a message that never ends.
        vec![0x02, 0x81, 0, 0, 0, 0, 0x90],
    ];
    for frame in frames {
        let mut stream = target.connect().await?;
        stream.write_all(head.as_bytes()).await.map_err(|it| it.to_string())?;
        // It may have hung up on the first of them.
        let _ = stream.write_all(&frame).await;
        let _ = stream.shutdown().await;
        let told = super::target::read_to_end(stream).await?;
        ensure(told.starts_with("HTTP/1.1 101"), || format!("{frame:?}: {told}"))?;
    }
    target.output(0, "true").await.map(|_| ())
}
