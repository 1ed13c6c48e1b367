//! Images of a registry that wants a password.

use crate::{
    failures::chain,
    house::{House, docker, ready, spec},
    registry::{For, PASSWORD, Registry, secret},
};
use slotmux_backend::{Backend, BackendError, conformance::LIMIT};
use std::{fs, time::Duration};
use tempfile::TempDir;
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(10);

struct Site {
    house: House,
    registry: Registry,
    config: TempDir,
}

impl Site {
    async fn new(test: &str, whom: For) -> Option<Self> {
        let mut house = House::open(test)?;
        let machine = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let registry = Registry::open(machine, whom).await;
        let config = tempfile::tempdir().unwrap();
        house.settings.config_dir = Some(config.path().to_owned());
        house.settings.default.image = registry.image("there");
        Some(Self { house, registry, config })
    }

    fn configure(&self, text: &str) {
        fs::write(self.config.path().join("config.json"), text).unwrap();
    }

    fn log_in(&self, password: &str) {
        let (host, auth) = (self.registry.host(), secret(password));
        self.configure(&format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#));
    }

    async fn serves(&self) {
        let backend = self.house.backend();
        let mut facts = backend.facts();
        let launched = timeout(LIMIT, backend.launch(spec("one"))).await.expect("in time");
        launched.map_err(|error| chain(&error)).unwrap();
        ready(&mut facts).await;
        backend.stop(&spec("one").container, GRACE).await.unwrap();
        docker(&["rmi", &self.registry.image("there")]).unwrap();
        assert_eq!(self.house.leftovers(), [""; 0]);
    }

    async fn failure(&self) -> (BackendError, String) {
        let launched = timeout(LIMIT, self.house.backend().launch(spec("one"))).await;
        let error = launched.expect("an answer in time").expect_err("it was to fail");
        let text = chain(&error);
        assert!(!text.contains(PASSWORD), "{text}");
        (error, text)
    }
}

#[tokio::test]
async fn a_password_that_the_cli_has_kept_opens_a_registry() {
    let Some(site) = Site::new("a private registry", For::ThePassword).await else { return };
    site.log_in(PASSWORD);
    site.serves().await;
}

/// As a desktop leaves it in a configuration that a server has got.
#[tokio::test]
async fn a_helper_that_is_not_there_does_not_keep_what_is_for_all() {
    let Some(site) = Site::new("a public registry", For::All).await else { return };
    site.configure(r#"{"credsStore": "slotmux-none-such"}"#);
    site.serves().await;
}

#[tokio::test]
async fn what_a_registry_refuses_is_told_by_its_reason() {
    let Some(mut site) = Site::new("refusals of a registry", For::ThePassword).await else {
        return;
    };
    let (error, text) = site.failure().await;
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.contains("denies it, and Docker's configuration has no credentials"), "{text}");
    site.log_in("wrong");
    let (error, text) = site.failure().await;
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.contains("denies it, with the credentials"), "{text}");
    site.log_in(PASSWORD);
    for (tag, words) in [("none-such", "has no such image"), ("elsewhere", "kind of machine")] {
        site.house.settings.default.image = site.registry.image(tag);
        let (error, text) = site.failure().await;
        assert!(matches!(error, BackendError::Refused { .. }), "{text}");
        assert!(text.contains(words), "{text}");
    }
    site.configure(r#"{"credsStore": "slotmux-none-such"}"#);
    let (error, text) = site.failure().await;
    assert!(matches!(error, BackendError::Unavailable { .. }), "{text}");
    assert!(text.contains("docker-credential-slotmux-none-such"), "{text}");
    site.configure("{}");
    site.house.settings.default.image = "127.0.0.1:9/team/image:there".to_owned();
    let (error, text) = site.failure().await;
    assert!(matches!(error, BackendError::Unavailable { .. }), "{text}");
    assert!(text.contains("cannot reach its registry"), "{text}");
    assert_eq!(site.house.leftovers(), [""; 0]);
}
