//! What a call has used, told with its result.

use super::{modes, server_with};
use crate::{
    rung::{Rung, scenarios},
    server::Server,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

scenarios! {
    everywhere: [
        the_background_counts_for_the_call_that_it_runs_beside,
        what_was_killed_counts,
        the_most_memory_of_a_call_is_told,
        the_share_of_processors_is_kept,
    ]
}

async fn bash(server: &Server, command: &str, timeout_s: f64) -> Value {
    let call = json!({ "tool": "bash", "args": { "command": command }, "timeout_s": timeout_s });
    let (status, result) = server.post("/v1/slots/slot_0/execute", call.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{result}");
    result
}

fn number(result: &Value, name: &str) -> u64 {
    result["usage"][name].as_u64().unwrap_or_else(|| panic!("{name}: {result}"))
}

fn cpu_us(result: &Value) -> u64 {
    number(result, "user_us") + number(result, "system_us")
}

const BURN: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";

async fn the_background_counts_for_the_call_that_it_runs_beside(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &[]);
        let burn = bash(&server, BURN, 60.0).await;
        let all = cpu_us(&burn);
        let command = format!(
            "({BURN}; : > done; exec sleep 1000) > /dev/null 2>&1 & \
             until [ -e done ]; do sleep 0.05; done"
        );
        let result = bash(&server, &command, 60.0).await;
        assert_eq!(result["success"], true, "{result}");
        // What runs here and there takes not the same, but not next to nothing.
        assert!(cpu_us(&result) >= all / 3, "{all} {result}");
        // It is over: the next call has nothing of it.
        let next = bash(&server, "true", 60.0).await;
        assert!(cpu_us(&next) < all / 3, "{all} {next}");
    }
}

async fn what_was_killed_counts(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--cpu-ms-max", "400"]);
        let result = bash(&server, "(while :; do :; done) & (while :; do :; done)", 60.0).await;
        assert_eq!(result["ended"], "timeout", "{result}");
        assert_eq!(result["data"]["limit"], "cpu_time", "{result}");
        assert!(cpu_us(&result) >= 400_000, "{result}");
    }
}

async fn the_most_memory_of_a_call_is_told(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &[]);
        let result = bash(&server, "head -c 60M /dev/zero | tail | wc -c; sleep 0.2", 60.0).await;
        assert_eq!(result["success"], true, "{result}");
        assert!(number(&result, "max_rss_bytes") >= 60 << 20, "{result}");
        assert!(number(&result, "memory_peak_bytes") > 1 << 20, "{result}");
        if !mode.contains(&"--no-cgroup") {
            assert!(number(&result, "memory_peak_bytes") >= 60 << 20, "{result}");
        }
    }
}

async fn the_share_of_processors_is_kept(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--cpu-millis-max", "200"]);
        if server.get("/health").await["limits_by"]["cpu"] == "nothing" {
            println!("not here: there is no cgroup that divides processors");
            continue;
        }
        let command = "(while :; do :; done) & while [ $SECONDS -lt 3 ]; do :; done; kill %1";
        let result = bash(&server, command, 60.0).await;
        assert_eq!(result["success"], true, "{result}");
        let share = cpu_us(&result) * 1_000 / number(&result, "wall_us");
        println!("{share} thousandths");
        assert!(share < 300, "{share}: {result}");
    }
}
