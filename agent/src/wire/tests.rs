use super::*;

fn encoded(fields: Vec<(&str, Value)>) -> Vec<u8> {
    let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
    let mut bytes = Vec::new();
    write_value(&mut bytes, &Value::Map(fields)).unwrap();
    bytes
}

fn asked(more: Vec<(&str, Value)>) -> Vec<u8> {
    let mut fields = vec![
        ("type", "run_student".into()),
        ("environment", Value::Nil),
        ("time_limit", 0.into()),
        ("hard_time_limit", 0.into()),
        ("memory_limit", 0.into()),
        ("share_network", false.into()),
        ("socket_id", "abc.sock".into()),
        ("ssh", false.into()),
        ("run_as_root", false.into()),
    ];
    for (name, value) in more {
        fields.retain(|(old, _)| *old != name);
        fields.push((name, value));
    }
    encoded(fields)
}

#[test]
fn a_wish_for_a_student_container_is_read() {
    let wish = RunStudent { socket_id: "abc.sock".to_owned(), ..RunStudent::default() };
    let read = FromContainer::read(&asked(Vec::new())).unwrap();
    assert_eq!(read, Some(FromContainer::RunStudent(wish.clone())));
    let read = FromContainer::read(&asked(vec![
        ("environment", "python3".into()),
        ("time_limit", 1.5.into()),
        ("hard_time_limit", "4".into()),
        ("memory_limit", 30.9.into()),
        ("ssh", 1.into()),
        ("something_new", 1.into()),
    ]));
    let wish = RunStudent {
        environment: Some("python3".to_owned()),
        time: Duration::from_millis(1500),
        hard_time: Duration::from_secs(4),
        memory_mb: 30,
        ssh: true,
        ..wish
    };
    assert_eq!(read.unwrap(), Some(FromContainer::RunStudent(wish)));
}

#[test]
fn times_that_are_none_are_refused_or_bounded() {
    for bad in [Value::from(f64::NAN), "soon".into(), Value::Array(Vec::new())] {
        let read = FromContainer::read(&asked(vec![("time_limit", bad)]));
        assert!(matches!(read, Err(BadMessage::Field("time_limit"))), "{read:?}");
    }
    for (time, seconds) in [(-1.0, 0), (f64::INFINITY, 31_536_000), (1e300, 31_536_000)] {
        let read = FromContainer::read(&asked(vec![("time_limit", time.into())])).unwrap();
        let Some(FromContainer::RunStudent(wish)) = read else { panic!("{read:?}") };
        assert_eq!(wish.time.as_secs(), seconds);
    }
}

#[test]
fn what_is_no_message_is_an_error_and_an_unknown_type_is_none() {
    let unknown = encoded(vec![("type", "student_signal".into())]);
    assert_eq!(FromContainer::read(&unknown).unwrap(), None);
    for bad in [
        &b""[..],
        b"\xc1",
        b"\x80",
        b"\x93",
        &encoded(vec![("type", 3.into())]),
        &encoded(vec![("type", "result".into())]),
        &encoded(vec![("type", "result".into()), ("result", "good".into())]),
        &encoded(vec![("type", "ssh_debug".into()), ("ssh_user", "a".into())]),
        &asked(vec![("socket_id", Value::Nil)]),
        // A list in a list in a list …
        &vec![0x91; 100_000],
        // Four billion entries.
        b"\xdf\xff\xff\xff\xff",
    ] {
        assert!(FromContainer::read(bad).is_err(), "{:?}", &bad[..bad.len().min(20)]);
    }
}

#[test]
fn what_is_said_to_a_container_is_this_to_the_byte() {
    let input = Value::Map(vec![("q".into(), "1".into())]);
    let start = Start {
        input: &input,
        debug: crate::Debug::Ssh,
        environment_types: vec!["docker"],
        run_cmd: Some("/task/x"),
        run_as_root: false,
    };
    assert_eq!(
        start.framed().unwrap(),
        &b"\x00\x00\x00\x50\x86\xa4type\xa5start\xa5input\x81\xa1q\xa11\xa5debug\xa3ssh\
           \xa8envtypes\x81\xa6docker\xc3\xabrun_as_root\xc2\xa7run_cmd\xa7/task/x"[..]
    );
    let plain = Start { debug: crate::Debug::No, run_cmd: None, ..start };
    assert!(plain.framed().unwrap().ends_with(b"\xabrun_as_root\xc2"), "no nil");
    assert_eq!(
        student_ended("s", 254).unwrap(),
        &b"\x00\x00\x00\x2e\x83\xa4type\xb2run_student_retval\xa9socket_id\xa1s\xa6retval\xcc\xfe"
            [..]
    );
    assert!(student_started("s", "c").unwrap().ends_with(b"\xaccontainer_id\xa1c"));
}
