//! Tools through a pool: what they print meanwhile, and a root that is the whole image.

use serde_json::{Value, json};
use slotmux_tests::{Pool, open_dir};

#[tokio::test]
async fn what_a_command_prints_comes_through_the_pool_while_it_runs() {
    let dir = open_dir();
    let pool = Pool::start(dir.path(), &["--slots", "2", "--containers-max", "1"]).await;
    let lease = pool.acquire("t").await;
    let url = format!("{}/v1/leases/{lease}/execute", pool.url);
    let command = "touch begun; printf 'caf\\303'; printf '\\251\\n'; until [ -e go ]; do sleep 0.01; done; \
                   echo no >&2; echo last";
    let call = json!({ "tool": "bash", "args": { "command": command }, "timeout_s": 60 });
    let request = pool.http.post(&url).header("accept", "application/x-ndjson");
    let mut response = request.json(&call).send().await.unwrap();
    let mut text = Vec::new();
    let first = |text: &[u8]| {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        lines.filter_map(|line| line["stdout"].as_str().map(str::to_owned)).collect::<String>()
    };
    while first(&text) != "café\n" {
        text.extend_from_slice(&response.chunk().await.unwrap().expect("it has not ended"));
    }
    // A second call waits for the first, so the file comes by another way.
    let begun = slotmux_tests::files_below(dir.path()).into_iter().find(|it| it.ends_with("begun"));
    std::fs::write(begun.unwrap().with_file_name("go"), "").unwrap();
    let rest = response.text().await.unwrap();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(last["result"]["output"], "café\nlast\n\n[stderr]\nno\n", "{last}");
    pool.stop().await;
}

#[tokio::test]
async fn a_profile_can_have_the_whole_image_as_its_root() {
    if !rustix::process::geteuid().is_root() {
        // Its files are root's.
        return;
    }
    let dir = open_dir();
    let pool = Pool::start(dir.path(), &["--slots", "1", "--root", "image"]).await;
    let lease = pool.acquire("t").await;
    let made = "id -u; echo made > /usr/lib/made-by-a-slot; cat /usr/lib/made-by-a-slot";
    assert_eq!(pool.bash(&lease, made).await["output"], "0\nmade\n");
    let path = format!("/v1/leases/{lease}");
    assert_eq!(pool.send(reqwest::Method::DELETE, &path, Value::Null).await.0, 204);
    let lease = pool.acquire("another").await;
    assert_eq!(pool.bash(&lease, "ls /usr/lib/made-by-a-slot").await["success"], false);
    assert!(!std::path::Path::new("/usr/lib/made-by-a-slot").exists());
    pool.stop().await;
}
