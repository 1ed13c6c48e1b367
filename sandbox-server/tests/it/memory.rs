//! What the server itself takes.

use crate::{
    host::status_kib,
    rung::{Rung, scenarios},
    server::{Server, Setup},
};

scenarios! {
    everywhere: [
        ten_slots_at_rest_take_less_than_ten_megabytes,
        endless_output_leaves_less_than_thirty_megabytes,
    ]
}

/// Without optimisation the program's own text is several times what is shipped: not counted then.
fn resident_kib(server: &Server) -> u64 {
    let name = if cfg!(debug_assertions) { "RssAnon" } else { "VmRSS" };
    status_kib(server.pid().as_raw_nonzero().get(), name)
}

async fn ten_slots_at_rest_take_less_than_ten_megabytes(rung: &'static Rung) {
    let server = Server::with(rung, Setup { slots: 10, ..Setup::default() });
    for slot in 0..10 {
        server.output(slot, "true").await;
    }
    let resident = resident_kib(&server);
    println!("at rest on {}: {resident} KiB", rung.name);
    assert!(resident < 10 << 10, "{resident} KiB");
}

async fn endless_output_leaves_less_than_thirty_megabytes(rung: &'static Rung) {
    let server = Server::with(rung, Setup { slots: 2, ..Setup::default() });
    let (one, other) = tokio::join!(
        server.bash_within(0, "yes", 0.5),
        server.bash_within(1, "yes >&2 & cat /dev/zero", 0.5),
    );
    assert!(one.output.len() < 60_000 && other.output.len() < 300_000);
    let resident = resident_kib(&server);
    println!("after endless output on {}: {resident} KiB", rung.name);
    assert!(resident < 30 << 10, "{resident} KiB");
}
