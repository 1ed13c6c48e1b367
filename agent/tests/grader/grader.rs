//! A grading container that does what its task says, line by line. Speaks the container's side of
//! the protocol with nothing but the standard library, so that it is one static file.
//!
//! It is compiled by the tests, and is their image's only program: under the name
//! `_run_student_intern` it is a student container, and does what `/task/student/run` says.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::net::UnixListener,
    thread::sleep,
    time::{Duration, Instant},
};

fn main() {
    let is_student = env::args().next().is_some_and(|it| it.ends_with("_run_student_intern"));
    if is_student {
        if !fs::exists("/task/student/run").unwrap_or(false) {
            std::process::exit(3);
        }
        return script("/task/student/run", &[]);
    }
    let start = match fs::exists("/task/deaf") {
        Ok(true) => Vec::new(),
        _ => read_frame(),
    };
    script("/task/run", &start);
}

fn script(path: &str, start: &[u8]) {
    let text = fs::read_to_string(path).unwrap_or_else(|_| "result crash no-script".to_owned());
    let mut code = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        match words.first().copied().unwrap_or("") {
            "sleep" => sleep(Duration::from_millis(number(1))),
            "burn" => burn(Duration::from_millis(number(1))),
            "memory" => fill(number(1)),
            "exit" => std::process::exit(i32::try_from(number(1)).unwrap_or(1)),
            "result" => say(&result(words[1], words.get(2).copied().unwrap_or(""))),
            // What it was told, as it came.
            "start" => say(&result("success", &hex(start))),
            "raw" => out(&unhex(words[1])),
            // So many bytes of a message that never ends.
            "flood" => flood(number(1)),
            "length" => out(&u32::try_from(number(1)).unwrap_or(u32::MAX).to_be_bytes()),
            "student" => {
                let share = words.get(5).is_some();
                code = student(words[1], number(2), number(3), number(4), share);
            }
            // A wish whose answer is not waited for.
            "wish" => wish(words[1], number(2), number(3), number(4), false),
            "answer" => code = answer().1,
            "code" => say(&result("success", &code.to_string())),
            "write" => fs::write(words[1], words.get(2).copied().unwrap_or("")).unwrap(),
            "mkdirs" => deep(words[1], number(2)),
            "link" => std::os::unix::fs::symlink(words[1], words[2]).unwrap(),
            // Its code is that of the error.
            "rename" => {
                let renamed = fs::rename(words[1], words[2]);
                code = renamed.err().and_then(|it| it.raw_os_error()).unwrap_or(0).into();
            }
            "stderr" => io::stderr().write_all(&vec![b'x'; number(1) as usize]).unwrap(),
            "show" => say(&result("success", &fs::read_to_string(words[1]).unwrap_or_default())),
            "processes" => processes(number(1)),
            "" => {}
            other => panic!("{other}?"),
        }
    }
}

fn burn(time: Duration) {
    let began = Instant::now();
    while time.is_zero() || began.elapsed() < time {
        std::hint::black_box((0..10_000_u64).sum::<u64>());
    }
}

/// Megabytes that are really there.
fn fill(megabytes: u64) {
    let mut all = Vec::new();
    for _ in 0..megabytes {
        all.push(vec![7_u8; 1 << 20]);
    }
    std::hint::black_box(&all);
}

fn deep(at: &str, levels: u64) {
    fs::create_dir_all(at).unwrap();
    env::set_current_dir(at).unwrap();
    for _ in 0..levels {
        fs::create_dir("d").unwrap();
        env::set_current_dir("d").unwrap();
    }
}

/// Says how many it could start.
fn processes(wanted: u64) {
    let mut threads = Vec::new();
    for _ in 0..wanted {
        let spawned = std::thread::Builder::new()
            .stack_size(16 << 10)
            .spawn(|| sleep(Duration::from_secs(60)));
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(_) => break,
        }
    }
    say(&result("success", &threads.len().to_string()));
    std::process::exit(0);
}

fn flood(megabytes: u64) {
    let piece = vec![0xc0; 1 << 20];
    for _ in 0..megabytes {
        out(&piece);
    }
}

/// Waits for its end; of the answers, only that counts.
fn student(socket_id: &str, time_s: u64, hard_s: u64, memory_mb: u64, share: bool) -> i64 {
    wish(socket_id, time_s, hard_s, memory_mb, share);
    loop {
        let (kind, code) = answer();
        if kind == "run_student_retval" {
            return code;
        }
    }
}

fn wish(socket_id: &str, time_s: u64, hard_s: u64, memory_mb: u64, share: bool) {
    let path = format!("/sockets/{socket_id}.sock");
    if let Ok(listener) = UnixListener::bind(path) {
        std::mem::forget(listener);
    }
    let mut message = vec![0x89];
    for (name, value) in [
        ("type", text("run_student")),
        ("environment", vec![0xc0]),
        ("time_limit", unsigned(time_s)),
        ("hard_time_limit", unsigned(hard_s)),
        ("memory_limit", unsigned(memory_mb)),
        ("share_network", vec![if share { 0xc3 } else { 0xc2 }]),
        ("socket_id", text(socket_id)),
        ("ssh", vec![0xc2]),
        ("run_as_root", vec![0xc2]),
    ] {
        message.extend(text(name));
        message.extend(value);
    }
    say(&message);
}

/// The next message: its type, and the code that is in it.
fn answer() -> (String, i64) {
    let frame = read_frame();
    let (mut kind, mut code) = (String::new(), -1);
    let fields = frame[0] & 0x0f;
    let mut rest = &frame[1..];
    for _ in 0..fields {
        let name = read_text(&mut rest);
        match name.as_str() {
            "retval" => code = read_number(&mut rest),
            "type" => kind = read_text(&mut rest),
            _ => drop(read_text(&mut rest)),
        }
    }
    (kind, code)
}

fn read_text(rest: &mut &[u8]) -> String {
    let (length, skip) = match rest[0] {
        it @ 0xa0..=0xbf => (usize::from(it & 0x1f), 1),
        0xd9 => (usize::from(rest[1]), 2),
        0xda => (usize::from(u16::from_be_bytes([rest[1], rest[2]])), 3),
        other => panic!("no text: {other}"),
    };
    let text = String::from_utf8(rest[skip..skip + length].to_vec()).unwrap();
    *rest = &rest[skip + length..];
    text
}

fn read_number(rest: &mut &[u8]) -> i64 {
    let (number, length) = match rest[0] {
        it @ 0..=0x7f => (i64::from(it), 1),
        it @ 0xe0..=0xff => (i64::from(it as i8), 1),
        0xcc => (i64::from(rest[1]), 2),
        0xcd => (i64::from(u16::from_be_bytes([rest[1], rest[2]])), 3),
        other => panic!("no number: {other}"),
    };
    *rest = &rest[length..];
    number
}

fn result(verdict: &str, words: &str) -> Vec<u8> {
    let mut message = vec![0x82];
    message.extend(text("type"));
    message.extend(text("result"));
    message.extend(text("result"));
    message.push(0x82);
    message.extend(text("result"));
    message.extend(text(verdict));
    message.extend(text("text"));
    message.extend(text(words));
    message
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xdb];
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn unsigned(number: u64) -> Vec<u8> {
    let mut bytes = vec![0xcf];
    bytes.extend(number.to_be_bytes());
    bytes
}

fn read_frame() -> Vec<u8> {
    let mut length = [0; 4];
    io::stdin().read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    io::stdin().read_exact(&mut frame).unwrap();
    frame
}

fn say(message: &[u8]) {
    let mut frame = u32::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(message);
    out(&frame);
}

fn out(bytes: &[u8]) {
    let mut stdout = io::stdout();
    stdout.write_all(bytes).unwrap();
    stdout.flush().unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}
