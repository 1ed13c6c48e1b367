//! An engine that says what it is told to: for what no engine here says.

use crate::house::next_news;
use slotmux_docker::{Engine, Event, News, Selector};
use std::{collections::HashMap, path::PathBuf};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::AbortHandle,
};

/// A call is answered by the first that fits its path; the version of the API is left out of it.
type Script = &'static [(&'static str, &'static str)];

struct Scripted {
    dir: TempDir,
    porter: AbortHandle,
}

impl Scripted {
    fn open(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("engine")).unwrap();
        let porter = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, script));
            }
        });
        Self { dir, porter: porter.abort_handle() }
    }

    fn engine(&self) -> Engine {
        let path: PathBuf = self.dir.path().join("engine");
        Engine::new(Some(&format!("unix://{}", path.display())))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

/// Calls are small: each comes in one piece.
async fn serve(mut client: UnixStream, script: Script) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut bytes).await {
        let text = String::from_utf8_lossy(&bytes[..count]);
        let path = text.split(' ').nth(1).expect("a path");
        let (_, body) = script.iter().find(|(at, _)| path.contains(at)).expect(path);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = format!("{head}{body}");
        if client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// As Docker 29 sends them: without `status`, `id` and `from` at the top.
#[tokio::test]
async fn events_are_read_without_the_fields_that_newer_engines_leave_out() {
    const EVENT: &str = r#"{"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"3","slotmux.owner":"me"}},"scope":"local","time":1795652506,"timeNano":1795652506000000001}"#;
    let scripted = Scripted::open(&[
        ("/version", r#"{"Version":"29.0.0","ApiVersion":"1.52","MinAPIVersion":"1.44"}"#),
        ("/v1.52/info", r#"{"SystemTime":"2026-11-26T00:21:46.1Z"}"#),
        ("/v1.52/events?since=", EVENT),
    ]);
    let mut feed = scripted.engine().events(Selector {
        label: "slotmux.owner".to_owned(),
        value: "me".to_owned(),
        actions: &["die"],
    });
    assert_eq!(next_news(&mut feed).await, News::LookAgain);
    let attributes = [("exitCode", "3"), ("slotmux.owner", "me")];
    let attributes: HashMap<_, _> =
        attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let event = Event { action: "die".to_owned(), id: "abc".to_owned(), attributes };
    assert_eq!(next_news(&mut feed).await, News::Event(event));
}
