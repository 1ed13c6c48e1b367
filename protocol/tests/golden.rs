//! The bytes of every message of the Link, so that a change of the wire is a change of this file.
//!
//! `UPDATE=1 cargo test -p slotmux-protocol --test golden` writes them anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use slotmux_protocol::{
    BashArgs, CallLimits, CausedBy, Code, ContainerId, Decoder, Ended, Epoch, ExecutionId,
    Isolation, LINK_VERSION, LeaseId, Network, Problem, ProfileName, ReadFileArgs, SlotIndex,
    ToolCall, ToolResult, TrajectoryId, Usage, WriteFileArgs, encode,
    link::{
        Call, CallId, FromContainer, Holder, OutputStream, ServerInfo, SlotReport, SlotState,
        ToContainer,
    },
};
use std::fmt::{Debug, Write as _};

const SLOT: SlotIndex = SlotIndex(3);
const EPOCH: Epoch = Epoch(0x6a1b);

fn holder() -> Holder {
    Holder {
        lease: LeaseId(EPOCH),
        trajectory: TrajectoryId::new("t-1").unwrap(),
        profile: ProfileName::new("default").unwrap(),
        ttl_ms: 60_000,
    }
}

fn call(tool: ToolCall) -> ToContainer {
    ToContainer::Call(Box::new(Call {
        call: CallId(9),
        slot: SLOT,
        epoch: EPOCH,
        execution_id: ExecutionId::new("e-1").unwrap(),
        tool,
        limits: CallLimits::default(),
        stream: false,
    }))
}

fn to_container() -> Vec<ToContainer> {
    vec![
        ToContainer::Hello {
            version: LINK_VERSION,
            pool: "p".to_owned(),
            generation: 7,
            heartbeat_ms: 500,
        },
        ToContainer::Open { slot: SLOT, holder: holder() },
        ToContainer::Reset { slot: SLOT, epoch: EPOCH },
        call(ToolCall::Bash(BashArgs::new("ls"))),
        call(ToolCall::ReadFile(ReadFileArgs::new("a"))),
        call(ToolCall::WriteFile(WriteFileArgs::new("a", "b"))),
        ToContainer::Cancel { call: CallId(9) },
        ToContainer::Ping { seq: 1 },
        ToContainer::Shutdown { grace_ms: 5_000 },
    ]
}

fn from_container() -> Vec<FromContainer> {
    let server = ServerInfo {
        container: ContainerId::new("c-1").unwrap(),
        version: "0.1.0".to_owned(),
        boot_id: "b".to_owned(),
        isolation: Isolation::Namespaces,
        network: Network::Off,
    };
    let states = [
        SlotState::Clean { fence: EPOCH },
        SlotState::Open { holder: holder() },
        SlotState::Dirty { fence: EPOCH },
    ];
    let slots = states.map(|state| SlotReport { slot: SLOT, state });
    let result = ToolResult {
        execution_id: ExecutionId::new("e-1").unwrap(),
        success: false,
        output: "o".to_owned(),
        data: None,
        error: "Exit code: 1".to_owned(),
        ended: Ended::Exited,
        caused_by: CausedBy::Policy,
        exit_code: Some(1),
        signal: None,
        isolation: Isolation::Uid,
        network: Network::On,
        usage: Usage { wall_us: 1, memory_peak_bytes: Some(2), ..Usage::default() },
    };
    let why = || "w".to_owned();
    vec![
        FromContainer::Hello { version: LINK_VERSION, server, slots: slots.into() },
        FromContainer::Opened { slot: SLOT, epoch: EPOCH },
        FromContainer::Shut { slot: SLOT, epoch: EPOCH, why: why() },
        FromContainer::Clean { slot: SLOT, epoch: EPOCH },
        FromContainer::Dirty { slot: SLOT, epoch: EPOCH, why: why() },
        FromContainer::Output {
            call: CallId(9),
            stream: OutputStream::Stderr,
            bytes: Bytes::from_static(b"\xff"),
        },
        FromContainer::Done { call: CallId(9), result: Box::new(result) },
        FromContainer::Refused {
            call: CallId(9),
            problem: Box::new(Problem::new(Code::StaleEpoch, "d").at("epoch")),
        },
        FromContainer::Broken { slot: SLOT, epoch: EPOCH, why: why() },
        FromContainer::Pong { seq: 1 },
    ]
}

/// Each frame in hexadecimal on a line of its own; each must also read back as it was.
fn lines<T: Serialize + DeserializeOwned + PartialEq + Debug>(messages: &[T]) -> String {
    let mut text = String::new();
    for message in messages {
        let mut frame = BytesMut::new();
        encode(message, 1 << 20, &mut frame).unwrap();
        for byte in &frame {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(&frame);
        assert_eq!(decoder.next_message::<T>().unwrap().as_ref(), Some(message));
    }
    text
}

fn check(name: &str, got: &str) {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(got, golden, "the wire has changed: {path}");
}

#[test]
fn messages_to_a_container_have_the_golden_bytes() {
    check("to_container", &lines(&to_container()));
}

#[test]
fn messages_from_a_container_have_the_golden_bytes() {
    check("from_container", &lines(&from_container()));
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_take_their_defaults() {
    #[derive(Serialize)]
    struct Newer {
        wall_us: u64,
        joules: u64,
    }
    let mut frame = BytesMut::new();
    encode(&Newer { wall_us: 5, joules: 9 }, 1 << 10, &mut frame).unwrap();
    let mut decoder = Decoder::new(1 << 10);
    decoder.push(&frame);
    let usage = decoder.next_message::<Usage>().unwrap();
    assert_eq!(usage, Some(Usage { wall_us: 5, ..Usage::default() }));
}
