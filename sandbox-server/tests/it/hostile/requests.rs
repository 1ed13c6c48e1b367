//! Of clients: requests that are wrong, huge, slow, or never end.

use super::{
    Action, Target,
    target::{ensure, read_to_end},
};
use crate::http::bash;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) const ACTIONS: &[Action] = &[
    Action::requests("JSON in a hundred thousand levels", |it| Box::pin(deep_json(it))),
    Action::requests("JSON that is none", |it| Box::pin(no_json(it))),
    Action::requests("JSON of the wrong shape", |it| Box::pin(wrong_shapes(it))),
    Action::requests("a body over the limit", |it| Box::pin(large_body(it))),
    Action::requests("a body that unpacks to far more", |it| Box::pin(packed_body(it))),
    Action::requests("times that are none", |it| Box::pin(times(it))),
    Action::requests("names of slots that there are not", |it| Box::pin(slot_names(it))),
    Action::requests("names of tools that there are not", |it| Box::pin(tool_names(it))),
    Action::requests("a batch over the limit", |it| Box::pin(large_batch(it))),
    Action::requests("a batch of wrong calls", |it| Box::pin(wrong_batch(it))),
    Action::requests("names of executions that are none", |it| Box::pin(execution_names(it))),
    Action::requests("one execution on two slots", |it| Box::pin(two_slots(it))),
    Action::requests("half a head, many times", |it| Box::pin(half_heads(it))),
    Action::requests("half a body, many times", |it| Box::pin(half_bodies(it))),
    Action::requests("clients that hang up at every moment", |it| Box::pin(hang_ups(it))),
    Action::requests("a client that sends and never reads", |it| Box::pin(never_reads(it))),
    Action::requests("a client that closes its half", |it| Box::pin(half_closed(it))),
    Action::requests("a wrong token, or half of it", |it| Box::pin(tokens(it))),
    Action::requests("what a command prints, as bytes of the answer", |it| Box::pin(bytes(it))),
];

async fn refused(target: &Target, path: &str, body: Vec<u8>) -> Result<(), String> {
    let begin = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    let (status, answer) = target.post(path, body).await?;
    ensure((400..500).contains(&status), || format!("{path} {begin}: {status} {answer}"))?;
    let text = answer.to_string();
    ensure(text.len() < 4_096, || format!("{path} {begin}: an answer of {} bytes", text.len()))
}

async fn deep_json(target: &Target) -> Result<(), String> {
    let levels = 100_000;
    let arrays = "[".repeat(levels);
    let objects = r#"{"a":"#.repeat(levels);
    for path in ["/execute", "/batch", "/reset"] {
        for deep in [&arrays, &objects] {
            refused(target, path, deep.clone().into_bytes()).await?;
        }
        if path == "/reset" {
            // What it does not know is not looked at, however deep it is.
            continue;
        }
        let args = format!(
            r#"{{"slot_id":"slot_0","tool":"bash","args":{arrays}{}}}"#,
            "]".repeat(levels)
        );
        refused(target, path, args.into_bytes()).await?;
    }
    Ok(())
}

async fn no_json(target: &Target) -> Result<(), String> {
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"}",
        b"null garbage",
        b"\xff\xfe{}",
        b"{\"slot_id\":\"\xc3\x28\"}",
        b"NaN",
        b"'a'",
        b"{\"slot_id\":\"slot_0\",}",
        b"\0\0\0\0",
        b"<xml/>",
        b"{\"slot_id\":\"\\ud800\",\"tool\":\"bash\",\"args\":{}}",
    ];
    for body in bodies {
        for path in ["/execute", "/batch", "/reset"] {
            refused(target, path, body.to_vec()).await?;
        }
    }
    Ok(())
}

/// Whatever the status: nothing was run, and somebody is told.
async fn not_done(target: &Target, call: Value) -> Result<(), String> {
    let shown = call.to_string().chars().take(200).collect::<String>();
    let (status, answer) = target.post("/execute", call.to_string().into_bytes()).await?;
    let told = answer["error"].as_str().is_some_and(|it| !it.is_empty());
    ensure(told && answer["success"] == false && status < 500, || {
        format!("{shown}: {status} {answer}")
    })?;
    ensure(answer.to_string().len() < 8_192, || format!("{shown}: answered at length"))
}

async fn wrong_shapes(target: &Target) -> Result<(), String> {
    let good = bash(0, "touch ran");
    for field in ["slot_id", "tool", "args", "timeout", "execution_id"] {
        for value in [json!([]), json!({}), json!(true), json!([[1]]), json!({ "$ref": "#" })] {
            if field == "args"
                && value.is_object()
                && value.as_object().is_some_and(|it| !it.is_empty())
            {
                continue;
            }
            let mut call = good.clone();
            call[field] = value;
            not_done(target, call).await?;
        }
    }
    for args in [
        json!({}),
        json!({ "command": null }),
        json!({ "command": 7 }),
        json!({ "command": ["a"] }),
        json!({ "command": { "a": 1 } }),
        json!({ "cmd": "touch ran" }),
        json!([]),
        json!("touch ran"),
    ] {
        let mut call = good.clone();
        call["args"] = args;
        not_done(target, call).await?;
    }
    for field in ["slot_id", "tool", "args"] {
        let mut call = good.clone();
        call.as_object_mut().ok_or("no object")?.remove(field);
        not_done(target, call).await?;
    }
    let ran = target.output(0, "ls").await?;
    ensure(ran.is_empty(), || "one of them ran".to_owned())
}

async fn large_body(target: &Target) -> Result<(), String> {
    let head = format!(
        "POST /execute HTTP/1.1\r\nhost: h\r\n{}content-length: {}\r\n\r\n",
        target.authorization(),
        1_u64 << 40
    );
    let mut stream = target.connect().await?;
    stream.write_all(head.as_bytes()).await.map_err(|it| it.to_string())?;
    stream.shutdown().await.map_err(|it| it.to_string())?;
    let told = read_to_end(stream).await?;
    ensure(told.is_empty() || told.starts_with("HTTP/1.1 4"), || format!("a terabyte: {told}"))?;
    // It may hang up on who goes on sending.
    let body = bash(0, &"x".repeat(17 << 20)).to_string();
    let told = target.raw(&target.closing_post("/execute", &body)).await?;
    ensure(told.is_empty() || told.starts_with("HTTP/1.1 413"), || told)
}

async fn packed_body(target: &Target) -> Result<(), String> {
    let body = "x".repeat(100);
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let request = format!(
            "POST /execute HTTP/1.1\r\nhost: h\r\n{}connection: close\r\ncontent-encoding: {encoding}\r\n\
             content-length: {}\r\n\r\n{body}",
            target.authorization(),
            body.len()
        );
        let told = target.raw(request.as_bytes()).await?;
        ensure(told.starts_with("HTTP/1.1 4"), || format!("{encoding}: {told}"))?;
    }
    Ok(())
}

async fn times(target: &Target) -> Result<(), String> {
    for time in [
        "-1",
        "0",
        "-0.0",
        "1e308",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "\"30\"",
        "[]",
        "99999999999999999999",
        "true",
        "86401",
        "1e-400",
    ] {
        let body = format!(
            r#"{{"slot_id":"slot_0","tool":"bash","args":{{"command":"touch ran"}},"timeout":{time}}}"#
        );
        let (status, answer) = target.post("/execute", body.into_bytes()).await?;
        let told = answer["error"].as_str().is_some_and(|it| !it.is_empty());
        ensure(told && answer["success"] == false, || format!("{time}: {status} {answer}"))?;
    }
    let ran = target.output(0, "ls").await?;
    ensure(ran.is_empty(), || "one of them ran".to_owned())
}

async fn slot_names(target: &Target) -> Result<(), String> {
    let long = "slot_".to_owned() + &"9".repeat(1 << 20);
    for name in [
        "",
        "0",
        "slot",
        "slot_",
        "slot_-1",
        "slot_+1",
        "slot_2",
        "slot_01",
        "slot_0 ",
        " slot_0",
        "slot_0\0",
        "SLOT_0",
        "slot_0x0",
        "slot_0/../slot_1",
        "slot_65536",
        "slot_18446744073709551616",
        "slot_٠",
        "probe",
        "../trash",
        &long,
    ] {
        let mut call = bash(0, "touch ran");
        call["slot_id"] = name.into();
        not_done(target, call).await?;
        let body = json!({ "slot_id": name }).to_string().into_bytes();
        let (_, answer) = target.post("/reset", body).await?;
        ensure(answer["success"] == false, || format!("{name:.40} was reset"))?;
    }
    Ok(())
}

async fn tool_names(target: &Target) -> Result<(), String> {
    let long = "bash".repeat(1 << 18);
    for name in
        ["", "Bash", "bash ", "bash\0", "sh", "__proto__", "../bash", "reset", "\u{1b}[2J", &long]
    {
        let mut call = bash(0, "touch ran");
        call["tool"] = name.into();
        not_done(target, call).await?;
    }
    Ok(())
}

async fn large_batch(target: &Target) -> Result<(), String> {
    let calls: Vec<_> = (0..1_001).map(|_| bash(0, "touch ran")).collect();
    refused(target, "/batch", Value::from(calls).to_string().into_bytes()).await?;
    let nothing = format!("[{}]", "0,".repeat(1_000_000) + "0");
    refused(target, "/batch", nothing.into_bytes()).await?;
    let ran = target.output(0, "ls").await?;
    ensure(ran.is_empty(), || "some of it ran".to_owned())
}

async fn wrong_batch(target: &Target) -> Result<(), String> {
    for body in ["{}", "null", "\"a\"", "7", "[null]", "[[]]", "[{}]", r#"[{"slot_id":"slot_0"}]"#]
    {
        refused(target, "/batch", body.as_bytes().to_vec()).await?;
    }
    let mixed = json!([bash(0, "echo a"), bash(9, "echo b"), bash(1, "echo c")]);
    let (status, answer) = target.post("/batch", mixed.to_string().into_bytes()).await?;
    let done: Vec<_> =
        answer.as_array().into_iter().flatten().map(|it| it["success"].clone()).collect();
    ensure(done == [true, false, true], || format!("{status} {answer}"))
}

async fn execution_names(target: &Target) -> Result<(), String> {
    let long = "x".repeat(100_000);
    for id in ["", "\0", "a\nb", &long] {
        let mut call = bash(0, "touch ran");
        call["execution_id"] = id.into();
        let (status, answer) = target.post("/execute", call.to_string().into_bytes()).await?;
        ensure(status < 500 && answer.is_object(), || format!("{id:.20}: {status} {answer}"))?;
    }
    // More than are remembered.
    let ids = (0..3_000).map(|number| {
        let mut call = bash(0, "");
        call["tool"] = "read_file".into();
        call["args"] = json!({ "path": "none" });
        call["execution_id"] = json!(format!("{number}-{}", "y".repeat(50)));
        call
    });
    let ids: Vec<_> = ids.collect();
    for batch in ids.chunks(1_000) {
        let (status, _) =
            target.post("/batch", Value::from(batch.to_vec()).to_string().into_bytes()).await?;
        ensure(status == 200, || format!("{status}"))?;
    }
    Ok(())
}

/// An execution is one slot's: its answer is not told to another's caller.
async fn two_slots(target: &Target) -> Result<(), String> {
    let with_id = |slot, command: &str| {
        let mut call = bash(slot, command);
        call["execution_id"] = json!("the-same");
        call
    };
    let first = target.call(with_id(1, "cat kept")).await?;
    ensure(first.output == "kept", || format!("{first:?}"))?;
    let second = target.call(with_id(0, "echo mine")).await?;
    ensure(!second.output.contains("kept"), || format!("{second:?}"))
}

async fn half_heads(target: &Target) -> Result<(), String> {
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = target.connect().await?;
        stream.write_all(b"POST /execute HT").await.map_err(|it| it.to_string())?;
        held.push(stream);
    }
    let works =
        target.raw(&target.closing_post("/execute", &bash(1, "cat kept").to_string())).await?;
    ensure(works.contains("kept"), || works)
}

async fn half_bodies(target: &Target) -> Result<(), String> {
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = target.connect().await?;
        let rest = [
            "content-length: 16000000\r\n\r\n{",
            "transfer-encoding: chunked\r\n\r\nf00000\r\n{",
            "content-length: 5\r\nexpect: 100-continue\r\n\r\n",
        ][number % 3];
        let begun = format!("POST /batch HTTP/1.1\r\nhost: h\r\n{}{rest}", target.authorization());
        stream.write_all(begun.as_bytes()).await.map_err(|it| it.to_string())?;
        held.push(stream);
    }
    let works =
        target.raw(&target.closing_post("/execute", &bash(1, "cat kept").to_string())).await?;
    ensure(works.contains("kept"), || works)
}

async fn hang_ups(target: &Target) -> Result<(), String> {
    let whole = target.closing_post("/execute", &bash(0, "echo ran >> count").to_string());
    for length in (0..=whole.len()).step_by(7).chain([whole.len()]) {
        let mut stream = target.connect().await?;
        stream.write_all(&whole[..length]).await.map_err(|it| it.to_string())?;
        drop(stream);
    }
    target.output(0, "[ $(wc -l < count 2>/dev/null || echo 0) -le 1 ]").await.map(|_| ())
}

async fn never_reads(target: &Target) -> Result<(), String> {
    let call = bash(0, "head -c 40000 /dev/zero | tr '\\0' x").to_string();
    let request = format!(
        "POST /execute HTTP/1.1\r\nhost: h\r\n{}content-length: {}\r\n\r\n{call}",
        target.authorization(),
        call.len()
    );
    let mut stream = target.connect().await?;
    for _ in 0..200 {
        // Once the answers fill what lies between, this one is not read from either.
        let sent = stream.write_all(request.as_bytes());
        if tokio::time::timeout(std::time::Duration::from_millis(50), sent).await.is_err() {
            break;
        }
    }
    target.output(1, "true").await?;
    drop(stream);
    target.reset(0).await
}

async fn half_closed(target: &Target) -> Result<(), String> {
    let mut stream = target.connect().await?;
    let request = target.closing_post("/execute", &bash(0, "sleep 0.1; echo late").to_string());
    stream.write_all(&request).await.map_err(|it| it.to_string())?;
    stream.shutdown().await.map_err(|it| it.to_string())?;
    // Answered or hung up on, but not left hanging.
    let answer = read_to_end(stream).await?;
    ensure(answer.is_empty() || answer.contains("late"), || answer)
}

async fn tokens(target: &Target) -> Result<(), String> {
    let Some(token) = &target.token else { return Ok(()) };
    let call = bash(0, "touch ran").to_string();
    let half = &token[..token.len() / 2];
    let twice = format!("{token}{token}");
    for line in [
        String::new(),
        format!("authorization: Bearer {half}\r\n"),
        format!("authorization: Bearer {twice}\r\n"),
        format!("authorization: Basic {token}\r\n"),
        format!("authorization: {token}\r\n"),
        format!("authorization: Bearer \r\nx-token: {token}\r\n"),
        "authorization: Bearer \u{e9}\r\n".to_owned(),
    ] {
        for target_line in
            ["POST /execute", "POST /batch", "POST /reset", "GET /slots", "GET /v1/link"]
        {
            let request = format!(
                "{target_line} HTTP/1.1\r\nhost: h\r\n{line}connection: close\r\ncontent-length: {}\r\n\r\n{call}",
                call.len()
            );
            let told = target.raw(request.as_bytes()).await?;
            let refused =
                ["401", "403", "400"].iter().any(|it| told.starts_with(&format!("HTTP/1.1 {it}")));
            ensure(refused, || format!("{line:?}{target_line}: {told}"))?;
        }
    }
    let ran = target.output(0, "ls").await?;
    ensure(ran.is_empty(), || "one of them ran".to_owned())
}

/// Nothing that a command prints ends the answer, or begins another.
async fn bytes(target: &Target) -> Result<(), String> {
    let command = r#"printf 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\0\377"}]}\r\n0\r\n\r\n\033]0;title\007\033[2J'"#;
    let mut stream = target.connect().await?;
    let call = bash(0, command).to_string();
    let request = format!(
        "POST /execute HTTP/1.1\r\nhost: h\r\n{}content-length: {}\r\n\r\n{call}",
        target.authorization(),
        call.len()
    );
    let both = request.clone() + &request.replace("keep-alive", "close");
    stream.write_all(both.as_bytes()).await.map_err(|it| it.to_string())?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4_096];
    while seen.windows(12).filter(|it| it == b"\r\n\r\n{\"succes").count() < 2 {
        let read = tokio::time::timeout(crate::server::LIMIT, stream.read(&mut buffer)).await;
        let read = read.map_err(|_| "no second answer".to_owned())?.map_err(|it| it.to_string())?;
        ensure(read > 0, || format!("closed after {}", String::from_utf8_lossy(&seen)))?;
        seen.extend_from_slice(&buffer[..read]);
    }
    let raw = seen.contains(&0x1b) || seen.contains(&0) || seen.contains(&0xff);
    ensure(!raw, || "control bytes stand in the answer".to_owned())
}
