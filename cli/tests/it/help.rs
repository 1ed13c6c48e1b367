//! What the binary says of itself.

use crate::run::slotmux;

const COMMANDS: [&str; 10] = [
    "serve",
    "replay",
    "bench",
    "doctor",
    "acquire",
    "exec",
    "renew",
    "release",
    "status",
    "completions",
];

#[test]
fn every_command_explains_itself_with_an_example_and_its_exit_codes() {
    let all = slotmux(["--help"]);
    assert_eq!(all.code, Some(0));
    for command in COMMANDS {
        assert!(all.stdout.contains(&format!("  {command}")), "{command} is not listed");
        let help = slotmux([command, "--help"]);
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.stdout.contains("Example"), "{command}: no example");
        assert!(help.stdout.contains(&format!("slotmux {command}")), "{command}: whose example?");
        assert!(help.stdout.contains("Exit codes:"), "{command}: no exit codes");
    }
}

#[test]
fn it_tells_its_version() {
    let ran = slotmux(["--version"]);
    assert_eq!(ran.stdout, format!("slotmux {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_use_is_exit_code_2_and_says_what_is_wrong() {
    for args in [
        vec!["frobnicate"],
        vec!["replay"],
        vec!["replay", "x.jsonl", "--slots", "0"],
        vec!["replay", "x.jsonl", "--repeat", "0"],
        vec!["serve", "--network", "maybe"],
        vec!["serve", "--lease-ttl-s", "-1"],
        vec!["acquire", "--count", "0"],
        vec!["acquire", "--wait-s", "1e9"],
        vec!["exec", "not-a-lease", "--", "true"],
        vec!["exec", "lease-1", "--tool", "python", "--args", "{}"],
        vec!["exec", "lease-1", "--tool", "read_file"],
        vec!["exec", "lease-1"],
        vec!["exec", "lease-1", "--args", "{"],
        vec!["exec", "lease-1", "--args", "{\"command\": 7}"],
        vec!["release"],
        vec!["status", "--url", "ftp://127.0.0.1"],
        vec!["status", "--url", "https://127.0.0.1"],
        vec!["completions", "cobol"],
    ] {
        let ran = slotmux(&args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("error: "), "{args:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = slotmux(["completions", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("isolation-min"), "{shell}");
    }
}

#[test]
fn the_doctor_says_what_there_is() {
    let ran = slotmux(["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["rungs"].as_array().unwrap().len(), 4, "{report}");
    assert_eq!(ran.code, Some(i32::from(report["usable"] != true)), "{report}");
    assert!(
        report["rungs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|rung| { rung["works"].as_bool().unwrap() == rung["refused"].is_null() })
    );
    let image = (report["image"].is_null(), report["image_refused"].is_null());
    assert!(matches!(image, (true, false) | (false, true)), "{report}");
    let text = slotmux(["doctor"]);
    assert!(text.stdout.contains("kernel      Linux"), "{text:?}");
    assert!(text.stdout.contains("\nroot image  "), "{text:?}");
}
