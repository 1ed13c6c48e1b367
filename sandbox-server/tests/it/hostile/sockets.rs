//! On sockets: the server's port, the machine's, and kinds that reach past the network.

use super::{Action, Place};

const SHARED_LOOPBACK: &str =
    "loopback | network off: own; on: **shared with the machine** | network on: **shared**";

pub(super) const ACTIONS: &[Action] = &[
    Action::bash(
        "calls the server for the neighbour",
        r#"body='{"slot_id":"slot_1","tool":"bash","args":{"command":"touch planted; cat kept"}}'
         for host in 127.0.0.1 localhost 0.0.0.0 $(hostname -i 2>/dev/null); do
           exec 3<>/dev/tcp/$host/{port} || continue
           printf 'POST /execute HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: %s\r\n\r\n%s' ${#body} "$body" >&3
           timeout 5 cat <&3 | grep -q success.:true && echo ESCAPED $host
           exec 3<&-
         done 2>/dev/null; echo TRIED"#,
    ),
    Action::bash(
        "asks the server about the others",
        r"for path in slots health v1/tools; do
           exec 3<>/dev/tcp/127.0.0.1/{port} || continue
           printf 'GET /%s HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n' $path >&3
           timeout 5 cat <&3 | grep -q -e workspace_dir -e current_execution_id && echo ESCAPED $path
           exec 3<&-
         done 2>/dev/null; echo TRIED",
    ),
    Action::probe("takes the server's port", "port_taken", "{port}"),
    Action::probe("takes every seat of the server", "seats_taken", "{port} {mark}"),
    Action::bash(
        "listens, and the neighbour comes",
        "{probe listen_udp {mark}} > log 2>&1 & until [ -s port ]; do sleep 0.01; done; cat port",
    )
    .neighbour("true", "")
    .except(Place::Rungs(&["namespaces", "uid", "landlock"]), SHARED_LOOPBACK),
    Action::probe("raw sockets", "families", "raw"),
    Action::probe("packet sockets", "families", "packet"),
    Action::probe("sockets to the hypervisor", "families", "vsock"),
    Action::probe("sockets into the kernel's ciphers and keys", "families", "kernel"),
    Action::probe("sockets of buses, radios and clusters", "families", "rare"),
    Action::probe("changes of the network by netlink", "netlink", ""),
    Action::probe("descriptors in flight, as many as it may", "in_flight", "").except(
        Place::Rungs(&["landlock"]),
        "Inotify instances and descriptors in flight are counted by the kernel for the user",
    ),
];
