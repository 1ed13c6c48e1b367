//! Who reaches the network.

use crate::{
    http::{bash, call},
    rung::{Rung, scenarios},
    server::{Server, Setup},
};
use serde_json::json;

scenarios! {
    everywhere: [
        a_command_says_whether_it_had_the_network,
        require_sandbox_is_kept_or_refused,
    ]
    behind_walls: [
        without_network_nothing_outside_is_reached,
        one_call_can_be_without_network,
    ]
    in_namespaces: [
        without_network_a_slot_still_has_a_loopback_of_its_own,
    ]
}

const OFF: Setup<'static> = Setup { slots: 2, args: &["--network", "off"], env: &[], probe: true };

fn connect(server: &Server) -> String {
    let port = server.authority.rsplit(':').next().unwrap();
    format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected")
}

async fn a_command_says_whether_it_had_the_network(rung: &'static Rung) {
    let server = Server::start(rung);
    let result = server.bash(0, &connect(&server)).await;
    assert_eq!(result.output, "connected", "{result:?}");
    assert_eq!(result.metadata["network_isolated"], false);
}

async fn require_sandbox_is_kept_or_refused(rung: &'static Rung) {
    let server = Server::start(rung);
    for args in [
        json!({ "command": "touch ran", "require_sandbox": true }),
        json!({ "command": "touch ran", "allow_network": false }),
    ] {
        let result = server.call(call(0, "bash", args)).await;
        assert_eq!(result.success, !rung.is_none(), "{result:?}");
        assert!(result.success || !result.error.is_empty());
    }
    let ran = server.output(0, "ls").await;
    assert_eq!(ran, if rung.is_none() { "" } else { "ran" });
}

async fn without_network_nothing_outside_is_reached(rung: &'static Rung) {
    let server = Server::with(rung, OFF);
    let result = server.bash(0, &connect(&server)).await;
    assert!(!result.success && !result.output.contains("connected"), "{result:?}");
    assert_eq!(result.metadata["network_isolated"], true);
    // Asking for it does not give it.
    let args = json!({ "command": connect(&server), "allow_network": true });
    let result = server.call(call(0, "bash", args)).await;
    assert!(!result.success && !result.output.contains("connected"), "{result:?}");
    let port = server.authority.rsplit(':').next().unwrap();
    let result = server.probe(0, "no_network", port).await;
    assert!(result.success, "{result:?}");
}

async fn one_call_can_be_without_network(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let args = json!({ "command": connect(&server), "allow_network": false });
    let result = server.call(call(0, "bash", args)).await;
    assert!(!result.success && !result.output.contains("connected"), "{result:?}");
    assert_eq!(result.metadata["network_isolated"], true);
    let port = server.authority.rsplit(':').next().unwrap();
    let args =
        json!({ "command": server.probe_command("no_network", port), "allow_network": false });
    let result = server.call(call(0, "bash", args)).await;
    assert!(result.success, "{result:?}");
    // The next one has it again.
    let result = server.call(bash(0, &connect(&server))).await;
    assert_eq!(result.output, "connected", "{result:?}");
}

async fn without_network_a_slot_still_has_a_loopback_of_its_own(rung: &'static Rung) {
    let server = Server::with(rung, OFF);
    let result = server.probe(0, "loopback", "").await;
    assert!(result.success, "{result:?}");
}
