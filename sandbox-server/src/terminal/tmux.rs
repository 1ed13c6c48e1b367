//! The tool `tmux` of the atropos wire, in the words of ours: one session, called `main`.

use serde::Deserialize;
use slotmux_protocol::{Keys, TerminalAction, TerminalArgs};

const WAIT_S_MAX: f64 = 86_400.0;

/// What that wire does not know is ignored, as it is there.
#[derive(Debug, Deserialize)]
pub(crate) struct TmuxArgs {
    action: TmuxAction,
    keys: Option<Keys>,
    /// Wait until the shell is done with the keys, at most `max_wait_s`.
    #[serde(default)]
    block: bool,
    /// Where it does not wait for the shell: wait this long.
    min_wait_s: Option<f64>,
    max_wait_s: Option<f64>,
    #[serde(default)]
    capture_entire: bool,
    pane_width: Option<u16>,
    pane_height: Option<u16>,
    max_bytes: Option<u64>,
    /// Stream from the recording's beginning.
    #[serde(default)]
    reset: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TmuxAction {
    Start,
    SendKeys,
    Capture,
    Stream,
    Stop,
}

impl TmuxArgs {
    pub(crate) fn into_terminal(self) -> Result<TerminalArgs, String> {
        let mut args = TerminalArgs::new(match self.action {
            TmuxAction::Start => TerminalAction::Start,
            TmuxAction::SendKeys => TerminalAction::SendKeys,
            TmuxAction::Capture => TerminalAction::Capture,
            TmuxAction::Stream => TerminalAction::Cast,
            TmuxAction::Stop => TerminalAction::Stop,
        });
        if let TmuxAction::SendKeys = self.action {
            args.keys = self.keys;
            args.wait = self.block;
            if self.block {
                args.max_wait_ms = self.max_wait_s.map(millis).transpose()?;
            } else {
                args.min_wait_ms = self.min_wait_s.map(millis).transpose()?.filter(|it| *it > 0);
            }
        }
        args.rows = self.pane_height;
        args.cols = self.pane_width;
        args.entire = self.capture_entire;
        args.max_bytes = self.max_bytes;
        args.offset = self.reset.then_some(0);
        Ok(args)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
fn millis(seconds: f64) -> Result<u64, String> {
    if !(0.0..=WAIT_S_MAX).contains(&seconds) {
        return Err(format!("a wait is 0 to {WAIT_S_MAX} seconds"));
    }
    Ok((seconds * 1_000.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn terminal(args: Value) -> Result<TerminalArgs, String> {
        serde_json::from_value::<TmuxArgs>(args).map_err(|it| it.to_string())?.into_terminal()
    }

    #[test]
    fn its_actions_are_ours_by_other_names() {
        let sent = |args: &mut TerminalArgs| args.keys = Some(Keys::One("ls".to_owned()));
        type Change = fn(&mut TerminalArgs);
        let cases: [(Value, TerminalAction, Change); 6] = [
            (
                json!({"action": "start", "pane_width": 100, "pane_height": 30}),
                TerminalAction::Start,
                |it| {
                    (it.rows, it.cols) = (Some(30), Some(100));
                },
            ),
            (
                json!({"action": "send_keys", "keys": "ls", "block": true, "min_wait_s": 9, "max_wait_s": 1.5}),
                TerminalAction::SendKeys,
                |it| {
                    it.wait = true;
                    it.max_wait_ms = Some(1_500);
                },
            ),
            (
                json!({"action": "send_keys", "keys": "ls", "min_wait_s": 0.25, "max_wait_s": 9}),
                TerminalAction::SendKeys,
                |it| it.min_wait_ms = Some(250),
            ),
            (
                json!({"action": "capture", "capture_entire": true, "other": 1}),
                TerminalAction::Capture,
                |it| it.entire = true,
            ),
            (
                json!({"action": "stream", "max_bytes": 10, "reset": true}),
                TerminalAction::Cast,
                |it| {
                    (it.offset, it.max_bytes) = (Some(0), Some(10));
                },
            ),
            (json!({"action": "stop"}), TerminalAction::Stop, |_| {}),
        ];
        for (given, action, change) in cases {
            let mut wanted = TerminalArgs::new(action);
            if action == TerminalAction::SendKeys {
                sent(&mut wanted);
            }
            change(&mut wanted);
            assert_eq!(terminal(given.clone()), Ok(wanted), "{given}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [
            json!({}),
            json!({"action": "dance"}),
            json!({"action": "send_keys", "keys": 7}),
            json!({"action": "send_keys", "keys": "x", "min_wait_s": -1}),
            json!({"action": "send_keys", "keys": "x", "block": true, "max_wait_s": 1e9}),
        ] {
            assert!(terminal(args.clone()).is_err(), "{args}");
        }
    }
}
