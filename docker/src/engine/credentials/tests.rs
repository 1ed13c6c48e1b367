use super::*;
use std::fs;

async fn found(config: &str, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), config).unwrap();
    find(dir.path(), registry).await
}

#[test]
fn an_image_says_its_registry() {
    for (image, wanted) in [
        ("debian:12", HUB),
        ("team/image", HUB),
        ("index.docker.io/team/image", HUB),
        ("localhost/image", "localhost"),
        ("far:5000/image", "far:5000"),
        ("registry.example/team/image@sha256:00", "registry.example"),
    ] {
        assert_eq!(registry(image), wanted, "{image}");
    }
}

#[tokio::test]
async fn what_stands_in_the_file_is_found_under_every_way_to_write_a_registry() {
    let auth = STANDARD.encode("me:pass:word");
    for key in ["far:5000", "https://far:5000", "http://far:5000/v1/"] {
        let config = format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}, "psFormat": "x"}}"#);
        let credentials = found(&config, "far:5000").await.unwrap().expect(key);
        assert_eq!((&*credentials.user, &*credentials.secret), ("me", "pass:word"));
        assert!(!format!("{credentials:?}").contains("pass"), "{credentials:?}");
        assert_eq!(found(&config, "other:5000").await.unwrap(), None);
    }
    let config = format!(r#"{{"auths": {{"{HUB_KEY}": {{"identitytoken": "t"}}}}}}"#);
    let token = found(&config, HUB).await.unwrap().unwrap().for_engine();
    assert_eq!((token.identitytoken.as_deref(), token.username), (Some("t"), None));
    assert_eq!(found(r#"{"auths": {"far": {}}}"#, "far").await.unwrap(), None, "logged out");
}

#[tokio::test]
async fn a_file_that_cannot_be_understood_is_an_error_and_a_missing_one_is_none() {
    assert!(matches!(found("{", "far").await, Err(CredentialsError::Parse { .. })));
    let wrong = found(r#"{"auths": {"far": {"auth": "no base64"}}}"#, "far").await;
    assert!(matches!(wrong, Err(CredentialsError::Auth { .. })), "{wrong:?}");
    assert_eq!(find(Path::new("/nowhere"), "far").await.unwrap(), None);
    let missing = found(r#"{"credHelpers": {"far": "slotmux-none-such"}}"#, "far").await;
    let Err(CredentialsError::Helper { program, .. }) = missing else { panic!("{missing:?}") };
    assert_eq!(program, "docker-credential-slotmux-none-such");
}
