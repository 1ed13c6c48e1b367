use super::*;

fn faults(text: &str) -> Vec<String> {
    let faults = read(text.as_bytes()).unwrap().unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn every_field_is_read() {
    let text = r#"
{"trajectory_id": "t", "profile": "small", "group": "g", "requires": ["git"],
 "files": {"a/b.txt": "text"},
 "calls": [{"tool": "bash", "args": {"command": "ls"}, "timeout_s": 1.5,
   "expect": {"success": false, "exit_code": 2, "output_contains": "x", "ended": "timeout"}}],
 "reward": {"command": "true", "timeout_s": 5}}"#
        .replace('\n', " ");
    let [trajectory] =
        <[Trajectory; 1]>::try_from(read(text.as_bytes()).unwrap().unwrap()).unwrap();
    assert_eq!((trajectory.line, trajectory.id.as_str()), (1, "t"));
    assert_eq!(trajectory.requires, ["git"]);
    assert_eq!(trajectory.files[0].path, "a/b.txt");
    let call = &trajectory.calls[0];
    assert_eq!(call.timeout, Some(Seconds::from_millis(1_500)));
    assert_eq!(call.expect.ended, Some(Ended::Timeout));
    assert_eq!(call.expect.exit_code, Some(2));
    assert_eq!(trajectory.reward.unwrap().command, "true");
}

#[test]
fn every_fault_is_named_with_line_and_field() {
    let text = [
        r#"{"trajectory_id": "a", "calls": []"#,
        "",
        r#"{"trajectory_id": "a", "calls": [{"tool": "python", "args": {}}, {"tool": "bash", "args": {"command": 7}}, {"tool": "bash"}]}"#,
        r#"{"trajectory_id": "", "calls": []}"#,
        r#"{"trajectory_id": "b", "calls": [], "rewards": {}}"#,
        r#"{"trajectory_id": "c", "calls": [{"tool": "bash", "args": {"command": ""}, "timeout_s": 0, "expect": {"ended": "dead"}}]}"#,
        r#"{"trajectory_id": "d", "files": {"../x": "", "/etc/x": "", "ok": ""}, "calls": [], "requires": ["a b"]}"#,
        r#"{"trajectory_id": "d", "calls": [{"tool": "bash", "args": {"command": ""}, "timeout_s": 0}], "reward": {"command": 1}}"#,
        "not json",
    ];
    assert_eq!(
        faults(&text.join("\n")),
        [
            "1: EOF while parsing an object at column 34",
            "3: `calls[0].tool`: unknown tool `python`; the tools are bash, bash_stateful, terminal, \
             read_file, write_file, edit_file, list_files, glob, grep, stat, mkdir, delete, move, \
             archive",
            "3: `calls[1].args.command`: invalid type: integer `7`, expected a string",
            "3: `calls[2]`: missing field `args`",
            "4: `trajectory_id`: an id must not be empty",
            "5: `rewards`: unknown field `rewards`, expected one of `trajectory_id`, `profile`, \
             `group`, `requires`, `files`, `calls`, `reward`",
            "6: `calls[0].expect.ended`: unknown variant `dead`, expected one of `exited`, \
             `signaled`, `timeout`, `oom`, `pids`, `disk`, `output_limit`, `cancelled`, `lost`, \
             `unknown`",
            "7: `requires[0]`: not the name of an executable",
            "7: `files[\"../x\"]`: the path leaves the workspace",
            "7: `files[\"/etc/x\"]`: the path leaves the workspace",
            "8: `trajectory_id`: `d` stands in line 7 already",
            "8: `calls[0].timeout_s`: over 0 and at most 86400 seconds",
            "8: `reward.command`: invalid type: integer `1`, expected a string",
            "9: expected ident at column 2",
        ]
    );
}

#[test]
fn a_file_without_trajectories_is_malformed() {
    assert_eq!(faults("\n\n"), ["1: the file holds no trajectory"]);
}

#[test]
fn bytes_that_are_no_text_are_named_by_their_line() {
    let faults = read(&b"\n\xff\xfe\n"[..]).unwrap().unwrap_err();
    assert_eq!(faults[0].line, 2);
    assert!(faults[0].what.starts_with("not UTF-8"), "{}", faults[0]);
}

#[test]
fn a_line_is_read_up_to_its_limit_and_not_one_byte_further() {
    let line = |bytes: usize| {
        let frame = r#"{"trajectory_id": "t", "calls": [], "group": ""}"#.len();
        format!(
            r#"{{"trajectory_id": "t", "calls": [], "group": "{}"}}"#,
            "g".repeat(bytes - frame)
        )
    };
    assert!(read(line(LINE_BYTES_MAX).as_bytes()).unwrap().is_ok());
    assert!(faults(&line(LINE_BYTES_MAX + 1))[0].contains("16 MiB"));
}
