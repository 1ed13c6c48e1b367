use super::*;
use std::os::unix::net::UnixListener;

fn planned<'a>(
    image: &Path,
    to: &Path,
    left_out: &[&str],
    hidden: &'a [PathBuf],
) -> Result<Planner<'a>, PartsError> {
    let left_out = left_out.iter().map(|it| image.join(it)).collect();
    let mut planner = Planner { left_out, hidden, parts: Vec::new(), bytes: 0, files: 0 };
    planner.copy_around(image, to)?;
    Ok(planner)
}

/// Two directories: an image, and where its base goes.
fn home() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let (image, base) = (home.path().join("image"), home.path().join("base"));
    fs::create_dir(&image).unwrap();
    fs::create_dir(&base).unwrap();
    (home, image, base)
}

fn fill(dir: &Path, files: u64) {
    fs::create_dir_all(dir).unwrap();
    for number in 0..files {
        fs::write(dir.join(number.to_string()), "x").unwrap();
    }
}

#[test]
fn what_is_large_is_laid_over_and_what_is_small_or_beside_a_mount_is_copied() {
    let (_home, image, base) = home();
    fill(&image.join("usr/lib"), SMALL_FILES);
    fill(&image.join("opt"), 3);
    fill(&image.join("var/cache"), SMALL_FILES + 1);
    fill(&image.join("var/lib/volume"), 3);
    fill(&image.join("var/lib/small"), 2);
    fill(&image.join("proc"), 2);
    fs::write(image.join("etc-file"), "mounted").unwrap();
    fs::write(image.join("entrypoint"), "#!").unwrap();
    fs::set_permissions(image.join("entrypoint"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("usr/lib", image.join("lib")).unwrap();
    let _socket = UnixListener::bind(image.join("socket")).unwrap();
    let planner = planned(&image, &base, &["var/lib/volume", "proc", "etc-file"], &[]).unwrap();
    let mut parts: Vec<_> =
        planner.parts.iter().map(|it| it.strip_prefix(&image).unwrap().to_owned()).collect();
    parts.sort();
    assert_eq!(parts, [Path::new("usr"), Path::new("var/cache")]);
    for empty in ["usr", "var/cache", "var/lib/volume", "proc"] {
        assert_eq!(fs::read_dir(base.join(empty)).unwrap().count(), 0, "{empty}");
    }
    assert_eq!(fs::read_dir(base.join("var/lib/small")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(base.join("opt")).unwrap().count(), 3);
    assert_eq!(fs::read_link(base.join("lib")).unwrap(), Path::new("usr/lib"));
    assert_eq!(fs::metadata(base.join("entrypoint")).unwrap().mode() & 0o7777, 0o4751);
    assert!(!base.join("etc-file").exists() && !base.join("socket").exists());
}

#[test]
fn what_is_hidden_is_not_there_at_all() {
    let (_home, image, base) = home();
    fill(&image.join("srv/data/slots"), 2);
    fill(&image.join("srv/site"), 2);
    let hidden = [image.join("srv/data")];
    let planner = planned(&image, &base, &[], &hidden).unwrap();
    assert_eq!(planner.parts, [""; 0].map(PathBuf::from));
    let names: Vec<_> = fs::read_dir(base.join("srv")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(names[0].file_name(), "site");
}

#[test]
fn too_much_beside_a_mount_is_refused_and_says_what_it_is() {
    let (_home, image, base) = home();
    let large = fs::File::create(image.join("model.bin")).unwrap();
    large.set_len(COPIED_BYTES_MAX + 1).unwrap();
    let error = planned(&image, &base, &[], &[]).err().unwrap();
    let error = crate::chain(&error);
    assert!(error.contains("model.bin") && error.contains("1 GiB"), "{error}");
}
