//! A ROUTER for the tests, written from the RFCs and not from our own side of the wire: what both
//! agree on is what they say.
use rmpv::Value;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    time::timeout,
};

/// Nothing takes this long, even on a machine that is busy otherwise.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) enum Router {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One DEALER that has come.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    pub(crate) identity: Vec<u8>,
    /// Whether a PING is answered.
    pub(crate) receipts: bool,
    /// Whether hellos are passed over, where images come and go as others like.
    pub(crate) passes_hellos: bool,
}

impl Router {
    pub(crate) async fn bind(address: &str) -> Self {
        Self::Tcp(TcpListener::bind(address).await.unwrap())
    }

    pub(crate) async fn new() -> Self {
        Self::bind("127.0.0.1:0").await
    }

    pub(crate) fn ipc(path: &Path) -> Self {
        Self::Unix(UnixListener::bind(path).unwrap(), format!("ipc://{}", path.display()))
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => format!("tcp://{}", listener.local_addr().unwrap()),
            Self::Unix(_, address) => address.clone(),
        }
    }

    /// The next DEALER, after its handshake.
    pub(crate) async fn accept(&self) -> Peer {
        let accepted = async {
            let stream: Box<dyn Stream> = match self {
                Self::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
                Self::Unix(listener, _) => Box::new(listener.accept().await.unwrap().0),
            };
            let mut peer =
                Peer { stream, identity: Vec::new(), receipts: true, passes_hellos: false };
            peer.shake_hands().await;
            peer
        };
        timeout(LIMIT, accepted).await.expect("nobody connects")
    }
}

impl Peer {
    async fn shake_hands(&mut self) {
        let mut greeting = [0; 64];
        self.stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!((greeting[0], greeting[9], greeting[10]), (0xff, 0x7f, 3));
        assert_eq!(&greeting[12..32], b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        self.stream.write_all(&greeting).await.unwrap();
        let (flags, ready) = self.frame().await.unwrap();
        assert_eq!(flags, 4);
        let dealer = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x10";
        let identity = ready.strip_prefix(dealer).expect("a DEALER with an identity");
        assert!(identity.len() == 16 && identity[0] != 0);
        self.identity = identity.to_vec();
        let ready = b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0";
        self.write(4, ready).await;
    }

    /// The next message; `None`: the peer has gone.
    pub(crate) async fn hear(&mut self) -> Option<Value> {
        let message = async {
            loop {
                let (flags, body) = self.frame().await?;
                if flags == 0 {
                    let mut rest = &body[..];
                    let message = rmpv::decode::read_value(&mut rest).unwrap();
                    assert!(rest.is_empty());
                    return Some(message);
                }
                assert_eq!((flags, &body[..7]), (4, &b"\x04PING\0\0"[..]));
                if self.receipts {
                    let pong = [b"\x04PONG", &body[7..]].concat();
                    self.write(4, &pong).await;
                }
            }
        };
        timeout(LIMIT, message).await.expect("nothing is heard")
    }

    /// The next message, which is of this kind.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let mut message = self.hear().await.unwrap_or_else(|| panic!("gone before a {kind}"));
        while self.passes_hellos && message["@type"] == "AgentHello".into() {
            message = self.hear().await.unwrap_or_else(|| panic!("gone before a {kind}"));
        }
        assert_eq!(message["@type"], kind.into(), "{message}");
        message
    }

    /// That all before has been dealt with, and nothing was said of it but `Pong`.
    pub(crate) async fn is_quiet(&mut self) {
        self.say("Ping", vec![]).await;
        self.expect("Pong").await;
    }

    pub(crate) async fn say(&mut self, kind: &str, fields: Vec<(&str, Value)>) {
        let fields = fields.into_iter().chain([("@type", kind.into())]);
        let map = Value::Map(fields.map(|(name, value)| (name.into(), value)).collect());
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &map).unwrap();
        self.say_bytes(&bytes).await;
    }

    pub(crate) async fn say_bytes(&mut self, body: &[u8]) {
        self.write(0, body).await;
    }

    pub(crate) async fn write_raw(&mut self, bytes: &[u8]) {
        // The peer may have gone.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn write(&mut self, flags: u8, body: &[u8]) {
        let mut bytes = Vec::new();
        if let Ok(length) = u8::try_from(body.len()) {
            bytes.extend([flags, length]);
        } else {
            bytes.push(flags | 2);
            bytes.extend((body.len() as u64).to_be_bytes());
        }
        bytes.extend(body);
        self.write_raw(&bytes).await;
    }

    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let flags = self.stream.read_u8().await.ok()?;
        let length = match flags & 2 {
            0 => u64::from(self.stream.read_u8().await.ok()?),
            _ => self.stream.read_u64().await.ok()?,
        };
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((flags & !2, body))
    }
}
