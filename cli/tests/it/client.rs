//! The commands that talk to a pool.

use crate::run::{Place, Serving, slotmux};
use serde_json::Value;

#[test]
fn a_slot_is_acquired_used_renewed_and_released() {
    let place = Place::new();
    let pool = Serving::start(&place, &["--slots", "2", "--containers-max", "1"]);
    let acquired = pool.slotmux("acquire", &["t", "--ttl-s", "60"]);
    let lease = acquired.stdout.trim();
    assert!(lease.starts_with("lease-"), "{acquired:?}");
    let again = pool.slotmux("acquire", &["t", "--json"]);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["leases"][0]["lease_id"], lease);

    let ran = pool.slotmux("exec", &[lease, "--", "printf", "%s,", "a b", "c"]);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "a b,c,"), "{ran:?}");
    let ran = pool.slotmux("exec", &[lease, "--", "echo out; echo err >&2; exit 7"]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.stdout.contains("out") && ran.stdout.contains("err"), "{ran:?}");
    let ran = pool.slotmux("exec", &[lease, "--timeout-s", "0.2", "--", "sleep 100"]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    let write = ["--tool", "write_file", "--args", r#"{"path": "f", "content": "text"}"#];
    let ran = pool.slotmux("exec", &[&[lease], &write[..]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = pool.slotmux("exec", &[lease, "--json", "--", "cat f"]);
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&result["output"], &result["ended"]), (&"text".into(), &"exited".into()));

    let renewed = pool.slotmux("renew", &[lease, "--ttl-s", "600", "--json"]);
    let renewed: Value = serde_json::from_str(&renewed.stdout).unwrap();
    assert_eq!(renewed["ttl_s"], 600.0);
    let status = pool.slotmux("status", &[]);
    assert!(status.stdout.contains("1 leased"), "{status:?}");
    assert_eq!(pool.slotmux("release", &[lease]).code, Some(0));
    let late = pool.slotmux("exec", &[lease, "--", "true"]);
    assert_eq!(late.code, Some(125), "{late:?}");
    assert!(late.stderr.contains("lease_released"), "{late:?}");
}

#[test]
fn a_token_is_asked_for_and_taken() {
    let place = Place::new();
    let pool = Serving::start(&place, &["--token", "secret", "--containers-max", "1"]);
    let refused = pool.slotmux("status", &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("hint: give the pool's token"), "{refused:?}");
    assert_eq!(pool.slotmux("status", &["--token", "wrong"]).code, Some(1));
    assert_eq!(pool.slotmux("status", &["--token", "secret"]).code, Some(0));
}

#[test]
fn whoever_is_no_pool_is_called_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4_096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
    });
    let ran = slotmux(["status", "--url", &url]);
    server.join().unwrap();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("is no Slotmux pool: it answered 200 OK"), "{ran:?}");
}
