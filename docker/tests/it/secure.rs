//! An engine that is reached by TLS: one of the test's own, with certificates made for it.

use crate::{
    failures::chain,
    house::{House, SCRATCH},
    low_level::read,
};
use bollard::models::ContainerCreateBody;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use slotmux_backend::conformance::LIMIT;
use slotmux_docker::Engine;
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

const LOOKS_APART: Duration = Duration::from_millis(100);

/// An authority, and certificates of it for the engine and for its clients.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        for (name, purpose) in [
            ("engine", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let of = dir.path().join(name);
            fs::create_dir(&of).unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(of.join("ca.pem"), authority.pem()).unwrap();
            fs::write(of.join("cert.pem"), certificate.pem()).unwrap();
            fs::write(of.join("key.pem"), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    fn of(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Ends with this, and leaves nothing.
struct OwnEngine {
    process: Child,
    host: String,
    certificates: PathBuf,
    dir: TempDir,
}

impl OwnEngine {
    fn start(certificates: &Certificates) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: an engine by TLS: only root can start one");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("tcp://127.0.0.1:{port}");
        let own = certificates.of("engine");
        let option = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        let at = |name: &str| dir.path().join(name);
        let process = Command::new("dockerd")
            .args(["--host", &host, "--tlsverify"])
            .arg(option("tlscacert", own.join("ca.pem")))
            .arg(option("tlscert", own.join("cert.pem")))
            .arg(option("tlskey", own.join("key.pem")))
            .arg(option("data-root", at("data")))
            .arg(option("exec-root", at("exec")))
            .arg(option("pidfile", at("pid")))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(at("log")).unwrap())
            .spawn();
        let Ok(process) = process else {
            println!("skipped: an engine by TLS: no dockerd");
            return None;
        };
        Some(Self { process, host, certificates: certificates.of("client"), dir })
    }

    fn engine(&self, certificates: &Path) -> Engine {
        Engine::new(Some(&self.host)).with_certificates(certificates)
    }

    async fn answers(&mut self) -> Engine {
        let engine = self.engine(&self.certificates);
        let up = async {
            while let Err(error) = engine.version().await {
                let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
                let ended = self.process.try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?}: {}", log());
                println!("not yet: {}", chain(&error));
                sleep(LOOKS_APART).await;
            }
        };
        timeout(LIMIT, up).await.expect("it comes up");
        engine
    }

    /// The image of busybox, as the tests' engine has it.
    fn load_image(&self) {
        let file = self.dir.path().join("image");
        let saved = Command::new("docker")
            .args(["save", SCRATCH])
            .stdout(File::create(&file).unwrap())
            .status();
        assert!(saved.unwrap().success());
        let loaded = Command::new("docker")
            .args(["--host", &self.host, "load"])
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", &self.certificates)
            .stdin(File::open(&file).unwrap())
            .stdout(Stdio::null())
            .status();
        assert!(loaded.unwrap().success());
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        // It has ended itself, if this fails.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn an_engine_by_tls_is_verified_and_told_who_asks() {
    let Some(_house) = House::open("an engine by TLS") else { return };
    let certificates = Certificates::new();
    let Some(mut own) = OwnEngine::start(&certificates) else { return };
    let engine = own.answers().await;

    own.load_image();
    let body = ContainerCreateBody {
        image: Some(SCRATCH.to_owned()),
        cmd: Some(["/bin/sh", "-c", "cat; echo end >&2"].map(str::to_owned).into()),
        open_stdin: Some(true),
        stdin_once: Some(true),
        network_disabled: Some(true),
        ..Default::default()
    };
    let id = engine.create("one", body).await.unwrap();
    let mut attached = engine.attach(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    attached.input.write_all(b"said").await.unwrap();
    attached.input.shutdown().await.unwrap();
    let (stdout, stderr) = timeout(LIMIT, read(&mut attached)).await.expect("half-closed");
    assert_eq!((&stdout[..], &stderr[..]), (&b"said"[..], &b"end\n"[..]));
    engine.remove(&id).await.unwrap();

    let strangers = Certificates::new();
    let text = chain(&own.engine(&strangers.of("client")).version().await.unwrap_err());
    assert!(text.contains("cannot be reached") && text.contains("certificate"), "{text}");
    let nameless = tempfile::tempdir().unwrap();
    let text = chain(&own.engine(nameless.path()).version().await.unwrap_err());
    assert!(text.contains("ca.pem"), "{text}");
    fs::copy(certificates.of("client").join("ca.pem"), nameless.path().join("ca.pem")).unwrap();
    let text = chain(&own.engine(nameless.path()).version().await.unwrap_err());
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    let plain = Engine::new(Some(&own.host)).version().await.unwrap_err();
    assert!(chain(&plain).contains("HTTPS"), "{}", chain(&plain));
}
