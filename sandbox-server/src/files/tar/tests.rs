use super::{
    extract::{Extracted, extract},
    header::{Raw, build},
    *,
};
use crate::files::{FileError, Until, tests::workspace};
use flate2::{Compression, write::GzEncoder};
use slotmux_protocol::CallLimits;
use std::{
    fs,
    io::{Read, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};
use tokio_util::sync::CancellationToken;

fn until() -> Until {
    Until::new(CallLimits::default(), &CancellationToken::new())
}

fn raw(kind: u8, path: &str) -> Raw {
    Raw { kind, path: path.into(), link: Vec::new(), size: 0, mode: 0o644, mtime: 1_000 }
}

fn link(kind: u8, path: &str, target: &str) -> Vec<u8> {
    build(&Raw { link: target.into(), ..raw(kind, path) })
}

fn with_content(kind: u8, path: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = build(&Raw { size: content.len() as u64, ..raw(kind, path) });
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    with_content(b'0', path, content)
}

fn take(bytes: &[u8], limits: Limits) -> (tempfile::TempDir, Result<Extracted, FileError>) {
    let (dir, workspace) = workspace();
    let result = extract(&workspace, "to", bytes, limits, &until());
    (dir, result)
}

fn taken(entries: &[Vec<u8>]) -> (tempfile::TempDir, Extracted) {
    let (dir, result) = take(&entries.concat(), Limits::default());
    (dir, result.unwrap())
}

fn refused(entries: &[Vec<u8>], text: &str) {
    let (dir, result) = take(&entries.concat(), Limits::default());
    let error = result.unwrap_err().to_string();
    assert!(error.contains(text), "{error}");
    assert_nothing_outside(dir.path());
}

fn assert_nothing_outside(dir: &Path) {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["secret", "workspace"]);
    assert_eq!(fs::read(dir.join("secret")).unwrap(), b"s");
    let names = fs::read_dir(dir.join("workspace")).unwrap().map(|it| it.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["to"]);
}

#[test]
fn what_was_packed_is_extracted_as_it_was_and_the_same_files_give_the_same_bytes() {
    let (dir, workspace) = workspace();
    let top = dir.path().join("workspace/from");
    fs::create_dir_all(top.join("b/empty")).unwrap();
    fs::write(top.join("b/file"), vec![7; 70_000]).unwrap();
    fs::write(top.join("a.txt"), "").unwrap();
    let long = "ü".repeat(120);
    fs::write(top.join(&long), "long").unwrap();
    symlink(format!("b/{}", "x".repeat(150)), top.join("link")).unwrap();
    fs::set_permissions(top.join("b/file"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(top.join("b/empty"), fs::Permissions::from_mode(0o500)).unwrap();
    let mut bytes = Vec::new();
    let packed = pack(&workspace, "from", &mut bytes, Limits::default(), &until()).unwrap();
    assert_eq!((packed.entries, packed.bytes, packed.skipped), (6, 70_004, 0));
    let mut again = Vec::new();
    pack(&workspace, "from", &mut again, Limits::default(), &until()).unwrap();
    assert!(bytes == again, "not the same bytes");
    let extracted = extract(&workspace, "to", &*bytes, Limits::default(), &until()).unwrap();
    assert_eq!((extracted.entries, extracted.bytes, extracted.skipped), (6, 70_004, 0));
    let to = dir.path().join("workspace/to");
    assert_eq!(fs::read(to.join("b/file")).unwrap(), vec![7; 70_000]);
    assert_eq!(fs::read_to_string(to.join(&long)).unwrap(), "long");
    assert_eq!(fs::read_link(to.join("link")).unwrap(), fs::read_link(top.join("link")).unwrap());
    for (name, mode) in [("b/file", 0o751), ("b/empty", 0o500), ("a.txt", 0o644)] {
        let (old, new) = (top.join(name), to.join(name));
        let (old, new) = (fs::metadata(old).unwrap(), fs::metadata(new).unwrap());
        assert_eq!(new.mode() & 0o7777, mode, "{name}");
        assert_eq!(new.mtime(), old.mtime(), "{name}");
    }
}

/// The judge is another implementation.
#[test]
fn what_is_packed_is_a_tar_to_others_too() {
    let (dir, workspace) = workspace();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    workspace.write(&long, b"one").unwrap();
    workspace.write("two", b"2").unwrap();
    symlink("two", dir.path().join("workspace/three")).unwrap();
    let mut bytes = Vec::new();
    pack(&workspace, ".", &mut bytes, Limits::default(), &until()).unwrap();
    let mut archive = ::tar::Archive::new(&*bytes);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
        found.push((entry.path().unwrap().display().to_string(), content));
    }
    let expected = [
        (format!("{}/", "d".repeat(200)), ""),
        (long, "one"),
        ("three".to_owned(), ""),
        ("two".to_owned(), "2"),
    ];
    assert_eq!(found, expected.map(|(path, content)| (path, content.to_owned())));
}

#[test]
fn archives_of_others_are_understood_compressed_or_not() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let long = format!("{}/file", "p".repeat(150));
    for (path, content) in [("plain", "one"), (&*long, "two")] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o600);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let plain = builder.into_inner().unwrap();
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(&plain).unwrap();
    let zst = zstd::encode_all(&*plain, 3).unwrap();
    for bytes in [plain, gz.finish().unwrap(), zst] {
        let (dir, result) = take(&bytes, Limits::default());
        assert_eq!(result.unwrap().entries, 2);
        let to = dir.path().join("workspace/to");
        assert_eq!(fs::read_to_string(to.join("plain")).unwrap(), "one");
        assert_eq!(fs::read_to_string(to.join(&long)).unwrap(), "two");
    }
}

#[test]
fn extended_headers_say_names_sizes_and_times() {
    let pax = |records: &[(&str, &str)]| {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while length.to_string().len() + rest.len() != length {
                length += 1;
            }
            text = format!("{text}{length}{rest}");
        }
        with_content(b'x', "pax", text.as_bytes())
    };
    let mut short = file("short", b"four");
    // The size in its header is not its size.
    let wrong = build(&Raw { size: 0, ..raw(b'0', "short") });
    short.splice(..512, wrong);
    let records = [("path", "söme/lóng"), ("size", "4"), ("mtime", "77.5"), ("comment", "a=b\nc")];
    let (dir, extracted) =
        taken(&[with_content(b'g', "g", b"17 comment=hello\n"), pax(&records), short]);
    assert_eq!(extracted.entries, 1);
    let path = dir.path().join("workspace/to/söme/lóng");
    assert_eq!(fs::read(&path).unwrap(), b"four");
    assert_eq!(fs::metadata(path).unwrap().mtime(), 77);
    let sparse = [pax(&[("GNU.sparse.major", "1")]), file("f", b"")];
    refused(&sparse, "sparse");
    for damaged in [
        "x",
        "5 a=b\n",
        "999 a=b\n",
        "0 ",
        "-1 a=b\n",
        "6 ab=\n6 ab\n\n",
        "18446744073709551616 a=b\n",
    ] {
        refused(&[with_content(b'x', "pax", damaged.as_bytes()), file("f", b"")], "damaged");
    }
}

#[test]
fn names_that_lead_outside_end_the_extraction() {
    refused(&[file("/etc/passwd", b"x")], "absolute");
    refused(&[file("../secret", b"x")], "upwards");
    refused(&[file("a/../../secret", b"x")], "upwards");
    refused(&[file("a/..", b"x")], "upwards");
    refused(&[link(b'1', "f", "../../secret")], "upwards");
    refused(&[link(b'1', "f", "/etc/passwd")], "absolute");
    refused(&[link(b'1', "f", "none")], "not found");
    refused(&[build(&raw(b'5', "d")), link(b'1', "f", "d")], "no file");
}

#[test]
fn nothing_goes_through_a_link() {
    let inside = [build(&raw(b'5', "d")), link(b'2', "l", "d")];
    refused(&[inside.concat(), file("l/f", b"x")], "through a link");
    refused(&[inside.concat(), build(&raw(b'5', "l/e"))], "through a link");
    refused(&[inside.concat(), link(b'2', "l/e", "f")], "through a link");
    // A hard link to a link would be one; under the name of a link a file takes its place.
    refused(&[inside.concat(), link(b'1', "h", "l")], "no file");
    let (dir, _) = taken(&[link(b'2', "l", "f"), file("f", b"kept"), file("l", b"new")]);
    let to = dir.path().join("workspace/to");
    assert_eq!(fs::read(to.join("f")).unwrap(), b"kept");
    assert_eq!(fs::read(to.join("l")).unwrap(), b"new");
    assert!(fs::symlink_metadata(to.join("l")).unwrap().is_file());
}

#[test]
fn links_that_lead_outside_are_skipped_unless_they_are_wanted_as_they_are() {
    let entries = [
        link(b'2', "absolute", "/etc/passwd"),
        link(b'2', "up", "../secret"),
        link(b'2', "d/up", "a/../../../secret"),
        link(b'2', "d/e/in", "../../f"),
    ];
    let (dir, extracted) = taken(&entries);
    assert_eq!((extracted.entries, extracted.skipped), (1, 3));
    assert_eq!(extracted.skipped_names[0], "absolute: a link that leads out");
    assert!(fs::symlink_metadata(dir.path().join("workspace/to/d/e/in")).unwrap().is_symlink());
    let limits = Limits { links: Links::AsTheyAre, ..Limits::default() };
    let (_dir, result) = take(&entries.concat(), limits);
    assert_eq!(result.unwrap().entries, 4);
}

#[test]
fn what_a_slot_cannot_have_is_skipped_with_its_content() {
    let mut entries: Vec<_> = [b'3', b'4', b'6'].map(|kind| build(&raw(kind, "device"))).into();
    entries.push(with_content(b'Z', "unknown", &[b'x'; 1_000]));
    entries.push(file("after", b"after"));
    let (dir, extracted) = taken(&entries);
    assert_eq!((extracted.entries, extracted.skipped), (1, 4));
    assert_eq!(fs::read(dir.path().join("workspace/to/after")).unwrap(), b"after");
    refused(&[with_content(b'S', "sparse", b"")], "sparse");
}

#[test]
fn special_bits_are_dropped_and_shut_directories_are_filled() {
    let entries = [
        build(&Raw { mode: 0o4000, ..raw(b'5', "shut") }),
        build(&Raw { mode: 0o7777, ..raw(b'0', "shut/f") }),
        link(b'1', "shut/hard", "shut/f"),
    ];
    let (dir, extracted) = taken(&entries);
    assert_eq!(extracted.entries, 3);
    let shut = dir.path().join("workspace/to/shut");
    assert_eq!(fs::metadata(&shut).unwrap().mode() & 0o7777, 0);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    let (f, hard) =
        (fs::metadata(shut.join("f")).unwrap(), fs::metadata(shut.join("hard")).unwrap());
    assert_eq!((f.mode() & 0o7777, f.ino()), (0o777, hard.ino()));
}

#[test]
fn what_is_there_is_replaced_but_not_by_another_kind() {
    let (dir, workspace) = workspace();
    let to = dir.path().join("workspace/to");
    fs::create_dir_all(to.join("d")).unwrap();
    fs::write(to.join("f"), "old").unwrap();
    fs::hard_link(to.join("f"), to.join("other")).unwrap();
    let take = |entry: Vec<u8>| extract(&workspace, "to", &*entry, Limits::default(), &until());
    take(file("f", b"new")).unwrap();
    assert_eq!(fs::read(to.join("f")).unwrap(), b"new");
    assert_eq!(fs::read(to.join("other")).unwrap(), b"old", "written through the old file");
    take(build(&raw(b'5', "d"))).unwrap();
    assert!(take(file("d", b"x")).is_err() && to.join("d").is_dir());
    assert!(take(build(&raw(b'5', "f"))).is_err() && to.join("f").is_file());
    assert!(take(file("f/g", b"x")).is_err());
}

#[test]
fn every_limit_is_an_answer() {
    let entries = [file("a", &[1; 600]), file("b", &[2; 600])].concat();
    let at = Limits { entries_max: 2, bytes_max: 1_200, ..Limits::default() };
    assert!(take(&entries, at).1.is_ok());
    for limits in [Limits { entries_max: 1, ..at }, Limits { bytes_max: 1_199, ..at }] {
        let error = take(&entries, limits).1.unwrap_err();
        assert_eq!(error.reason(), "too_large", "{error}");
    }
    // Larger than a file of the workspace may be.
    let error = take(&file("a", &vec![0; 200_001]), Limits::default()).1.unwrap_err();
    assert_eq!(error.reason(), "too_large", "{error}");
    // Long names and headers one after another are not held.
    refused(&[with_content(b'L', "l", &vec![b'x'; 70_000]), file("f", b"")], "too long");
    refused(&[with_content(b'L', "l", &[b'x'; 5_000]), file("f", b"")], "too long");
    refused(&[with_content(b'x', "l", b"").repeat(20), file("f", b"")], "too many");
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let (_dir, workspace) = workspace();
    // Skipped content counts, too.
    let head = build(&Raw { size: 1 << 40, ..raw(b'Z', "bomb") });
    let bomb = head.chain(std::io::repeat(0).take(64 << 20));
    let limits = Limits { entries_max: 10, bytes_max: 1 << 20, ..Limits::default() };
    let error = extract(&workspace, "to", bomb, limits, &until()).unwrap_err();
    assert!(error.to_string().contains("more bytes"), "{error}");
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(&build(&Raw { size: 64 << 20, ..raw(b'Z', "bomb") })).unwrap();
    gz.write_all(&vec![0; 64 << 20]).unwrap();
    let error = extract(&workspace, "to", &*gz.finish().unwrap(), limits, &until()).unwrap_err();
    assert!(error.to_string().contains("more bytes"), "{error}");
}

#[test]
fn what_is_no_archive_or_ends_early_is_said() {
    for (bytes, text) in [
        (b"nonsense".to_vec(), "ends in the middle"),
        (vec![b'x'; 512], "no tar"),
        (file("f", &[1; 2_000])[..1_000].to_vec(), "ends in the middle"),
        (vec![0x1f, 0x8b, 0, 0, 0], "read the archive"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 1, 2], "read the archive"),
    ] {
        let error = take(&bytes, Limits::default()).1.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(take(b"", Limits::default()).1, Ok(Extracted::default()));
    assert_eq!(take(&[0; 1_024], Limits::default()).1, Ok(Extracted::default()));
}

#[test]
fn a_file_that_changes_while_it_is_packed_keeps_its_announced_size() {
    /// Changes the file when its header has been written.
    struct Meddler<'a> {
        out: Vec<u8>,
        path: &'a Path,
        bytes: usize,
    }
    impl std::io::Write for Meddler<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.out.is_empty() {
                fs::write(self.path, vec![b'y'; self.bytes])?;
            }
            self.out.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for bytes in [0, 10, 1_000] {
        let (dir, workspace) = workspace();
        workspace.write("f", &[b'x'; 100]).unwrap();
        let path = dir.path().join("workspace/f");
        let mut meddler = Meddler { out: Vec::new(), path: &path, bytes };
        pack(&workspace, "f", &mut meddler, Limits::default(), &until()).unwrap();
        let (other, result) = take(&meddler.out, Limits::default());
        assert_eq!(result.unwrap().bytes, 100);
        let content = fs::read(other.path().join("workspace/to/f")).unwrap();
        let kept = bytes.min(100);
        assert_eq!(content, [vec![b'y'; kept], vec![0; 100 - kept]].concat());
    }
}

#[test]
fn too_large_a_tree_is_not_packed_in_part() {
    let (dir, workspace) = workspace();
    for name in ["a", "b", "c"] {
        workspace.write(name, &[0; 100]).unwrap();
    }
    let at = Limits { entries_max: 3, bytes_max: 300, ..Limits::default() };
    assert!(pack(&workspace, ".", Vec::new(), at, &until()).is_ok());
    for limits in [Limits { entries_max: 2, ..at }, Limits { bytes_max: 299, ..at }] {
        let error = pack(&workspace, ".", Vec::new(), limits, &until()).unwrap_err();
        assert_eq!(error.reason(), "too_large", "{error}");
    }
    let deep = dir.path().join("workspace").join("d/".repeat(300));
    fs::create_dir_all(deep).unwrap();
    let error = pack(&workspace, ".", Vec::new(), Limits::default(), &until()).unwrap_err();
    assert_eq!(error.reason(), "too_large", "{error}");
}

#[test]
fn a_stop_is_heard() {
    let (_dir, workspace) = workspace();
    let stop = CancellationToken::new();
    let until = Until::new(CallLimits::default(), &stop);
    stop.cancel();
    let first = file("f", b"x");
    let endless = first.chain(std::io::repeat(0));
    let result = extract(&workspace, "to", endless, Limits::default(), &until);
    assert_eq!(result, Err(FileError::Cancelled));
    assert_eq!(
        pack(&workspace, ".", Vec::new(), Limits::default(), &until).unwrap_err(),
        FileError::Cancelled
    );
}

#[tokio::test]
async fn a_body_becomes_files_and_files_a_body() {
    let (dir, workspace) = workspace();
    workspace.write("from/f", &vec![b'x'; 150_000]).unwrap();
    let workspace = std::sync::Arc::new(workspace);
    let (mut writer, mut pieces) = bridge::writer(until());
    let (sender, reader) = bridge::reader(until());
    let from = std::sync::Arc::clone(&workspace);
    let packing = tokio::task::spawn_blocking(move || {
        pack(&from, "from", &mut writer, Limits::default(), &until()).unwrap();
        writer.finish().unwrap();
    });
    let extracting = tokio::task::spawn_blocking(move || {
        extract(&workspace, "to", reader, Limits::default(), &until())
    });
    while let Some(piece) = pieces.recv().await {
        sender.send(Ok(piece)).await.unwrap();
    }
    drop(sender);
    packing.await.unwrap();
    assert_eq!(extracting.await.unwrap().unwrap().bytes, 150_000);
    assert_eq!(fs::metadata(dir.path().join("workspace/to/f")).unwrap().len(), 150_000);
}

#[tokio::test]
async fn who_goes_away_ends_the_work() {
    // Nobody reads the body any more.
    let (mut writer, pieces) = bridge::writer(until());
    drop(pieces);
    let written = tokio::task::spawn_blocking(move || writer.write_all(&vec![0; 200_000]));
    assert_eq!(written.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    // Nobody sends, and the call is stopped.
    let stop = CancellationToken::new();
    let (_sender, mut reader) = bridge::reader(Until::new(CallLimits::default(), &stop));
    let read = tokio::task::spawn_blocking(move || reader.read(&mut [0; 8]));
    stop.cancel();
    assert!(read.await.unwrap().is_err());
    // Nobody sends, and time is over.
    let limits = CallLimits { timeout_ms: 1, ..CallLimits::default() };
    let (_sender, mut reader) = bridge::reader(Until::new(limits, &CancellationToken::new()));
    let read = tokio::task::spawn_blocking(move || reader.read(&mut [0; 8]));
    assert_eq!(read.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
