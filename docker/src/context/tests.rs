use super::*;
use futures_util::StreamExt;
use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

fn build(dir: &Path) -> Build {
    Build { context: dir.to_owned(), dockerfile: "Dockerfile".into(), args: BTreeMap::new() }
}

fn digest(build: &Build) -> String {
    Context::look(build).unwrap().digest(build).unwrap()
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("src/gen")).unwrap();
    for (name, text) in [
        ("Dockerfile", "FROM scratch"),
        (".dockerignore", "*\n!src\nsrc/gen\n"),
        ("secret", "s"),
        ("src/main", "m"),
        ("src/gen/out", "o"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    symlink("main", dir.path().join("src/link")).unwrap();
    dir
}

#[tokio::test]
async fn an_archive_has_what_is_not_ignored_and_always_the_dockerfile() {
    let dir = directory();
    let context = Context::look(&build(dir.path())).unwrap();
    assert_eq!(context.dockerfile, "Dockerfile");
    let bytes: Vec<u8> =
        pack(context).map(|piece| piece.unwrap().to_vec()).collect::<Vec<_>>().await.concat();
    let mut archive = tar::Archive::new(&bytes[..]);
    let names = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        entry.path().unwrap().display().to_string()
    });
    assert_eq!(names.collect::<Vec<_>>(), ["Dockerfile", "src/", "src/link", "src/main"]);
}

#[test]
fn a_digest_changes_with_what_goes_in_and_with_nothing_else() {
    let dir = directory();
    let mut build = build(dir.path());
    let first = digest(&build);
    fs::write(dir.path().join("secret"), "another").unwrap();
    fs::write(dir.path().join("src/main"), "m").unwrap();
    assert_eq!(digest(&build), first, "ignored, or written anew");
    build.args.insert("VERSION".to_owned(), "2".to_owned());
    let with_args = digest(&build);
    assert_ne!(with_args, first);
    fs::write(dir.path().join("src/main"), "n").unwrap();
    let changed = digest(&build);
    assert_ne!(changed, with_args);
    fs::remove_file(dir.path().join("src/link")).unwrap();
    assert_ne!(digest(&build), changed);
}

#[test]
fn a_dockerfile_elsewhere_goes_in_under_a_name_of_ours_and_one_that_is_missing_is_named() {
    let (dir, other) = (directory(), tempfile::tempdir().unwrap());
    let elsewhere = other.path().join("Other");
    let build = Build { dockerfile: elsewhere.clone(), ..build(dir.path()) };
    let missing = Context::look(&build).unwrap_err();
    assert_eq!(missing.to_string(), format!("read `{}`", elsewhere.display()));
    fs::write(&elsewhere, "FROM scratch").unwrap();
    assert_eq!(Context::look(&build).unwrap().dockerfile, FOREIGN_DOCKERFILE);
    fs::remove_file(dir.path().join("Dockerfile")).unwrap();
    let missing = Context::look(&super::tests::build(dir.path())).unwrap_err();
    assert!(missing.to_string().contains("Dockerfile"), "{missing}");
}

#[test]
fn a_context_is_read_again_only_if_it_looks_changed() {
    let dir = directory();
    let build = build(dir.path());
    let remembered = Remembered::default();
    let (_, first) = remembered.look(&build).unwrap();
    assert_eq!(remembered.look(&build).unwrap().1, first);
    fs::write(dir.path().join("src/main"), "longer").unwrap();
    assert_ne!(remembered.look(&build).unwrap().1, first);
}
