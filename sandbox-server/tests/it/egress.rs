//! A network that is a list.

use crate::{
    rung::{self, Rung, User, scenarios},
    server::{Failed, LIMIT, Server, Setup},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

scenarios! {
    everywhere: [
        only_a_rung_that_holds_a_list_takes_one,
    ]
    in_namespaces: [
        what_is_listed_is_reached_through_the_proxy_and_nothing_else,
        a_tunnel_ends_with_the_slot_and_the_next_one_has_a_new_proxy,
        programs_find_the_proxy_by_themselves,
    ]
}

/// Answers every request with `hello`.
async fn origin() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let answer =
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (authority, serving)
}

fn start(rung: &'static Rung, rules: &[&str]) -> Result<Server, Failed> {
    let mut args = vec!["--network", "allow"];
    for rule in rules {
        args.extend(["--allow", rule]);
    }
    Server::try_start(rung, Setup { args: &args, ..Setup::default() })
}

/// What the proxy inside says to a request.
fn ask(request: &str) -> String {
    format!("exec 3<>/dev/tcp/127.0.0.1/3128 && printf '{request}' >&3 && cat <&3")
}

fn get(authority: &str) -> String {
    ask(&format!(
        "GET http://{authority}/ HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n"
    ))
}

async fn only_a_rung_that_holds_a_list_takes_one(rung: &'static Rung) {
    match start(rung, &["x.example"]) {
        Ok(server) => {
            assert!(rung.is_namespaces());
            assert_eq!(server.get("/health").await["network"], "allow_list");
        }
        Err(Failed { log }) => {
            assert!(!rung.is_namespaces(), "{log}");
            assert!(log.contains("--network allow can be held only on"), "{log}");
        }
    }
    for (rules, text) in [(&[][..], "at least one --allow"), (&["*"], "`*`")] {
        let Err(Failed { log }) = start(rung, rules) else { panic!("{rules:?} is taken") };
        assert!(log.contains(text) || !rung.is_namespaces(), "{log}");
    }
}

async fn what_is_listed_is_reached_through_the_proxy_and_nothing_else(rung: &'static Rung) {
    let ((listed, one), (unlisted, other)) = (origin().await, origin().await);
    let server = start(rung, &[&listed, "localhost:1"]).unwrap();
    for slot in 0..2 {
        let output = server.output(slot, &get(&listed)).await;
        assert!(output.starts_with("HTTP/1.1 200") && output.ends_with("hello"), "{output}");
        let refused = server.output(slot, &get(&unlisted)).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains(&listed), "{refused}");
        // A name that is allowed, and means this machine.
        let refused = server.output(slot, &get("localhost:1")).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        assert!(refused.contains("`localhost:1`") && refused.contains("loopback"), "{refused}");
        let metadata = "169.254.169.254:80";
        let refused = server.output(slot, &get(metadata)).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        // Past the proxy there is no way, and none to the server either.
        for authority in [&listed, &unlisted, &server.authority, &"192.0.2.1:80".to_owned()] {
            let (host, port) = authority.rsplit_once(':').unwrap();
            let result = server.bash(slot, &format!("exec 3<>/dev/tcp/{host}/{port}")).await;
            assert!(!result.success, "{authority}: {result:?}");
        }
        let refused = server.output(slot, &get(&server.authority)).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    }
    let tunnelled = ask(&format!(
        "CONNECT {listed} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\nGET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"
    ));
    let output = server.output(0, &tunnelled).await;
    assert!(output.contains("HTTP/1.1 200") && output.ends_with("hello"), "{output}");
    // One call can be without it, and says so.
    let body = json!({ "tool": "bash", "args": { "command": "true" } }).to_string();
    let (_, result) = server.post("/v1/slots/slot_0/execute", body).await;
    assert_eq!(result["network"], "allow_list", "{result}");
    let mut off = crate::http::bash(0, &get(&listed));
    off["args"]["allow_network"] = false.into();
    let result = server.call(off).await;
    assert!(!result.success && result.metadata["network_isolated"] == true, "{result:?}");
    one.abort();
    other.abort();
}

async fn a_tunnel_ends_with_the_slot_and_the_next_one_has_a_new_proxy(rung: &'static Rung) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let server = start(rung, &[&authority]).unwrap();
    let connect = ask(&format!("CONNECT {authority} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"));
    let mut tunnel = open(&server, &listener, &connect).await;
    assert!(server.reset(0).await.success);
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LIMIT, tunnel.read_to_end(&mut rest)).await.expect("it has ended");
    let tunnel = open(&server, &listener, &connect).await;
    drop(tunnel);
}

async fn open(server: &Server, listener: &TcpListener, connect: &str) -> TcpStream {
    let begun = server.bash(0, &format!("({connect}) > /dev/null 2>&1 &")).await;
    assert!(begun.success, "{begun:?}");
    timeout(LIMIT, listener.accept()).await.expect("it comes through").unwrap().0
}

async fn programs_find_the_proxy_by_themselves(rung: &'static Rung) {
    let (listed, serving) = origin().await;
    let server = start(rung, &[&listed]).unwrap();
    let names = server.output(0, "env | grep -i proxy | sort").await;
    let proxy = "http://127.0.0.1:3128";
    let direct = "localhost,127.0.0.1,::1";
    assert_eq!(
        names,
        format!(
            "HTTPS_PROXY={proxy}\nHTTP_PROXY={proxy}\nNO_PROXY={direct}\nhttp_proxy={proxy}\n\
             https_proxy={proxy}\nno_proxy={direct}"
        )
    );
    // The origin's address is one that programs do not ask a proxy for unless they are told to.
    let curl = format!("NO_PROXY= no_proxy= curl -sS http://{listed}/");
    if server.bash(0, "curl --version").await.success {
        assert_eq!(server.output(0, &curl).await, "hello");
        assert_eq!(server.output(0, &curl.replace("curl", "curl -p")).await, "hello");
    } else {
        println!("skipped: curl is not in a slot");
    }
    let other = Server::start(&rung::ANY);
    assert_eq!(rung::ANY.user, User::Whoever);
    assert!(!other.output(0, "env").await.contains("3128"), "only where it is asked for");
    serving.abort();
}
