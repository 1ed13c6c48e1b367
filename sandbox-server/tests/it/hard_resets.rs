//! What a slot leaves behind so that its reset is hard.

use crate::{
    host::until_within,
    rung::{Rung, scenarios},
    server::{LIMIT, Server, Setup},
};
use std::{fs, time::Duration};

scenarios! {
    everywhere: [
        a_tree_deeper_than_any_path_is_gone_after_a_reset,
        a_home_that_its_owner_may_not_touch_is_reset,
    ]
}

async fn a_tree_deeper_than_any_path_is_gone_after_a_reset(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let made = server.probe(0, "deep", "20000").await;
    assert!(made.success, "{made:?}");
    assert!(server.workspace(0).join("d/d/d").exists());
    let reset = server.reset(0).await;
    assert!(reset.success, "{reset:?}");
    assert_eq!(server.output(0, "ls -A; touch f; ls").await, "f");
    let trash = server.data_dir().join("trash");
    until_within(LIMIT * 3, "the tree is gone", async || {
        // The server lives and answers meanwhile.
        assert_eq!(server.output(1, "echo works").await, "works");
        fs::read_dir(&trash).unwrap().count() == 0
    })
    .await;
}

async fn a_home_that_its_owner_may_not_touch_is_reset(rung: &'static Rung) {
    let server = Server::start(rung);
    // In namespaces it is a file system that goes with them.
    let dirs: &[&str] = if rung.is_namespaces() { &["$HOME"] } else { &["$HOME", "$TMPDIR"] };
    for dir in dirs {
        for mode in ["000", "555", "333"] {
            let command =
                format!("cd \"{dir}\" && mkdir -p a/b && touch a/b/f && chmod {mode} a/b a .");
            assert!(server.bash(0, &command).await.success, "{command}");
            let reset = tokio::time::timeout(Duration::from_secs(15), server.reset(0)).await;
            let reset = reset.expect("it is answered");
            assert!(reset.success, "{command}: {reset:?}");
            let left = server.output(0, "ls -A . \"$TMPDIR\" | grep -v : ; true").await;
            assert_eq!(left.trim(), "", "{command}");
            assert!(server.bash(0, "touch f \"$TMPDIR/f\"").await.success, "{command}");
            let written = server.write(0, "g", "x").await;
            assert!(written.success, "{command}: {written:?}");
        }
    }
}
