//! Numbers and truths as Python takes them: people write `"30"` and `1` for 30 and true.

use rmpv::Value;

/// `int(value)`.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Boolean(yes) => Some(i64::from(*yes)),
        Value::Integer(_) => value.as_i64().or(value.as_u64().map(|_| i64::MAX)),
        Value::F32(_) | Value::F64(_) => {
            let number = value.as_f64().filter(|it| it.is_finite())?;
            #[expect(clippy::cast_possible_truncation, reason = "towards zero and to the bounds")]
            Some(number as i64)
        }
        Value::String(text) => text.as_str()?.trim().parse().ok(),
        Value::Nil | Value::Binary(_) | Value::Array(_) | Value::Map(_) | Value::Ext(..) => None,
    }
}

/// `bool(value)`.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Nil => false,
        Value::Boolean(yes) => *yes,
        Value::Integer(_) | Value::F32(_) | Value::F64(_) => value.as_f64() != Some(0.0),
        Value::String(text) => !text.as_bytes().is_empty(),
        Value::Binary(bytes) => !bytes.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Map(fields) => !fields.is_empty(),
        Value::Ext(..) => true,
    }
}
