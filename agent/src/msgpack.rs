//! msgpack as Python writes and reads it: strings are `str`, bytes are `bin`, keys are anything.
//!
//! Invariant: reading costs memory in proportion to [`Bounds`], whatever the bytes say of
//! themselves, and a bounded depth of the stack.

use rmpv::Value;

/// What is read is also dropped, compared and written by recursion, in threads with small stacks.
const DEPTH_MAX: usize = 128;
/// A reader goes through one level for the value, one for its kind.
const LEVELS_FOR_EACH: usize = 2;

/// The one byte that begins nothing.
const RESERVED: u8 = 0xc1;

/// What one document may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Numbers, strings, maps, …; each takes some tens of bytes when it is read.
    pub(crate) values_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { values_max: 1 << 20 }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it ends in the middle")]
    Short,
    #[error("bytes follow its end")]
    Trailing,
    #[error("it has more than {0} values")]
    Values(u64),
    #[error("it is nested too deeply")]
    Deep,
    #[error("it has a byte that means nothing, 0xc1")]
    Reserved,
    #[error("it is no msgpack")]
    Syntax(#[from] rmpv::decode::Error),
}

/// The one document that `bytes` are.
pub(crate) fn read(bytes: &[u8], bounds: Bounds) -> Result<Value, Unreadable> {
    if scan(bytes, bounds)? != bytes.len() {
        return Err(Unreadable::Trailing);
    }
    let mut rest = bytes;
    let levels = DEPTH_MAX * LEVELS_FOR_EACH;
    match rmpv::decode::read_value_with_max_depth(&mut rest, levels) {
        Err(rmpv::decode::Error::DepthLimitExceeded) => Err(Unreadable::Deep),
        read => Ok(read?),
    }
}

pub(crate) fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes everything.
    if let Err(error) = rmpv::encode::write_value(&mut bytes, value) {
        tracing::error!(%error, "msgpack not written");
    }
    bytes
}

/// Where the first document ends. Holds nothing but a count.
fn scan(bytes: &[u8], bounds: Bounds) -> Result<usize, Unreadable> {
    let (mut at, mut due, mut seen) = (0_usize, 1_u64, 0_u64);
    while due > 0 {
        let head = Head::read(bytes.get(at..).unwrap_or_default()).ok_or(Unreadable::Short)?;
        if bytes[at] == RESERVED {
            return Err(Unreadable::Reserved);
        }
        seen += 1;
        due = (due - 1).saturating_add(head.values);
        if seen.saturating_add(due) > bounds.values_max {
            return Err(Unreadable::Values(bounds.values_max));
        }
        at = at.checked_add(head.bytes).ok_or(Unreadable::Short)?;
    }
    if at > bytes.len() { Err(Unreadable::Short) } else { Ok(at) }
}

/// Of one value: the bytes that it takes itself, and the values that are in it.
struct Head {
    bytes: usize,
    values: u64,
}

impl Head {
    /// By the table of formats in msgpack's specification.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&marker, rest) = bytes.split_first()?;
        let number = |size: usize| {
            let digits = rest.get(..size)?;
            Some(digits.iter().fold(0_u64, |all, digit| all << 8 | u64::from(*digit)))
        };
        let flat = |bytes: usize| Some(Self { bytes, values: 0 });
        let blob = |size: usize, more: usize| {
            let length = usize::try_from(number(size)?).ok()?;
            flat(length.checked_add(1 + size + more)?)
        };
        let many =
            |size: usize, each: u64| Some(Self { bytes: 1 + size, values: number(size)? * each });
        match marker {
            0x80..=0x8f => Some(Self { bytes: 1, values: u64::from(marker & 0x0f) * 2 }),
            0x90..=0x9f => Some(Self { bytes: 1, values: u64::from(marker & 0x0f) }),
            0xa0..=0xbf => flat(1 + usize::from(marker & 0x1f)),
            0xc4 | 0xd9 => blob(1, 0),
            0xc5 | 0xda => blob(2, 0),
            0xc6 | 0xdb => blob(4, 0),
            0xc7..=0xc9 => blob(1 << (marker - 0xc7), 1),
            0xca | 0xce | 0xd2 => flat(5),
            0xcb | 0xcf | 0xd3 => flat(9),
            0xcc | 0xd0 => flat(2),
            0xcd | 0xd1 => flat(3),
            0xd4..=0xd8 => flat(2 + (1 << (marker - 0xd4))),
            0xdc => many(2, 1),
            0xdd => many(4, 1),
            0xde => many(2, 2),
            0xdf => many(4, 2),
            _ => flat(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(depth: usize) -> Vec<u8> {
        [vec![0x91; depth - 1], vec![0xc0]].concat()
    }

    #[test]
    fn depth_is_bounded_at_the_limit_and_one_past_it() {
        assert!(read(&nested(DEPTH_MAX), Bounds::default()).is_ok());
        assert!(matches!(read(&nested(DEPTH_MAX + 1), Bounds::default()), Err(Unreadable::Deep)));
        assert!(matches!(read(&nested(1 << 20), Bounds::default()), Err(Unreadable::Deep)));
    }

    #[test]
    fn values_are_counted_before_any_is_read() {
        let few = Bounds { values_max: 4 };
        assert!(read(b"\x93\xc0\xc0\xc0", few).is_ok());
        assert!(matches!(read(b"\x94\xc0\xc0\xc0\xc0", few), Err(Unreadable::Values(4))));
        assert!(matches!(read(b"\x82\x01\x01\x02\x02", few), Err(Unreadable::Values(4))));
        // Four thousand millions of them, announced.
        let announced = read(b"\xdd\xff\xff\xff\xff", Bounds::default());
        assert!(matches!(announced, Err(Unreadable::Values(_))));
    }

    #[test]
    fn a_document_is_all_there_is() {
        assert!(matches!(read(b"", Bounds::default()), Err(Unreadable::Short)));
        assert!(matches!(read(b"\xda\xff\xffx", Bounds::default()), Err(Unreadable::Short)));
        assert!(matches!(read(b"\xc0\xc0", Bounds::default()), Err(Unreadable::Trailing)));
        assert!(matches!(read(b"\x91\xc1", Bounds::default()), Err(Unreadable::Reserved)));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("equal to itself", |it| !it.is_nan()).prop_map(Value::from),
            any::<f32>().prop_filter("equal to itself", |it| !it.is_nan()).prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
            (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(kind, data)| Value::Ext(kind, data)),
        ];
        leaf.prop_recursive(4, 100, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::from),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(value in any_value()) {
            let bytes = write(&value);
            prop_assert_eq!(scan(&bytes, Bounds::default()).unwrap(), bytes.len());
            prop_assert_eq!(read(&bytes, Bounds::default()).unwrap(), value);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, Bounds::default());
        }
    }
}
