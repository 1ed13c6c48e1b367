//! Times on the command line.

pub(crate) use slotmux_protocol::v1::Seconds;

pub(crate) fn parse(text: &str) -> Result<Seconds, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Seconds::try_from(seconds)
}
