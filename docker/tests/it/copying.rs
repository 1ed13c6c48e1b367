//! Files into containers and out of them, in streams.

use crate::{house::House, low_level::body};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use slotmux_backend::conformance::LIMIT;
use std::{io, io::Read};
use tokio::time::timeout;

const FILE_BYTES: usize = 5 << 20;

fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    header.set_uid(1_234);
    archive.append_data(&mut header, name, content).unwrap();
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn what_is_put_in_as_a_stream_comes_out_as_a_stream() {
    let Some(house) = House::open("copy out") else { return };
    let engine = house.engine();
    let id = engine.create(&house.settings.owner, body(&house, &["/bin/sh"])).await.unwrap();
    let content: Vec<u8> = (0..=250).cycle().take(FILE_BYTES).collect();
    let bytes = archive("dir/file", &content);
    let pieces: Vec<_> =
        bytes.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    engine.put_stream(&id, "/", stream::iter(pieces)).await.unwrap();

    let mut out = engine.get(&id, "/dir").await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = out.next().await {
        let piece = piece.unwrap();
        assert!(piece.len() <= 1 << 20, "no piece is everything: {}", piece.len());
        bytes.extend(piece);
    }
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut read = Vec::new();
        entry.read_to_end(&mut read).unwrap();
        let name = entry.path().unwrap().display().to_string();
        files.push((name, entry.header().uid().unwrap(), read));
    }
    let [(dir, _, _), (name, uid, read)] = &files[..] else { panic!("{} entries", files.len()) };
    assert_eq!((&**dir, &**name, *uid), ("dir/", "dir/file", 1_234));
    assert!(*read == content);

    let nowhere = engine.get(&id, "/nowhere").await.err().expect("it is not there");
    assert!(nowhere.is_not_found(), "{nowhere:?}");
    assert_eq!(nowhere.to_string(), "copy `/nowhere` out of the container");
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_or_that_nobody_wants_is_an_error_and_no_end_of_the_engine() {
    let Some(house) = House::open("copy in of a broken stream") else { return };
    let engine = house.engine();
    let id = engine.create(&house.settings.owner, body(&house, &["/bin/sh"])).await.unwrap();
    let bytes = archive("file", &vec![1; FILE_BYTES]);
    let begun = Ok(Bytes::copy_from_slice(&bytes[..FILE_BYTES / 2]));
    let broken = stream::iter([begun, Err(io::Error::other("the source broke"))]);
    let failed = timeout(LIMIT, engine.put_stream(&id, "/", broken)).await.unwrap();
    assert!(failed.is_err(), "half an archive is no archive");
    // More than any buffer holds, for a place that is not there.
    let unwanted = stream::iter(vec![Bytes::from(bytes); 8]).map(Ok);
    let refused = timeout(LIMIT, engine.put_stream(&id, "/nowhere", unwanted)).await.unwrap();
    assert_eq!(refused.unwrap_err().to_string(), "copy files into `/nowhere`");
    assert!(engine.find(&id).await.unwrap().is_some());
    engine.remove(&id).await.unwrap();
}
