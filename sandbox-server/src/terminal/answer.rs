//! What the tool says of a session, in words and for programs.

use super::{
    log::Part,
    session::{Session, Told},
    state::State,
};
use crate::{
    outcome::{Body, Outcome},
    slot::SessionEnd,
};
use serde_json::{Map, Value, json};
use slotmux_protocol::{CausedBy, Ended, Network, Usage};
use std::{collections::BTreeMap, fmt::Write as _};
use tokio::time::Instant;

/// The text, and the data beside it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) data: Map<String, Value>,
}

impl Answer {
    /// How the session `name` stands.
    pub(super) fn of(name: &str, state: &State) -> Self {
        let (row, col) = state.screen.cursor();
        let size = state.screen.size();
        let mut data = Map::new();
        data.insert("session".to_owned(), name.into());
        data.insert("running".to_owned(), state.end.is_none().into());
        data.insert("done".to_owned(), state.is_done(Instant::now()).into());
        let (code, signal) = match state.end {
            None => (state.progress.exit_code(), None),
            Some(SessionEnd::Exited(code)) => (Some(code), None),
            Some(SessionEnd::Signaled(signal)) => (None, Some(signal)),
            Some(SessionEnd::Lost) => (None, None),
        };
        data.insert("exit_code".to_owned(), code.into());
        if let Some(signal) = signal {
            data.insert("signal".to_owned(), signal.into());
        }
        if let Some(end) = state.end {
            data.insert("end".to_owned(), Told(end).to_string().into());
        }
        data.insert("rows".to_owned(), size.rows.get().into());
        data.insert("cols".to_owned(), size.cols.get().into());
        let hidden = state.screen.is_cursor_hidden();
        data.insert("cursor".to_owned(), json!({ "row": row, "col": col, "hidden": hidden }));
        data.insert("alternate_screen".to_owned(), state.screen.is_alternate().into());
        data.insert("title".to_owned(), state.screen.title().into());
        Self { text: String::new(), data }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn with_part(mut self, part: Part) -> Self {
        self.text = part.text;
        self.with("offset", part.offset)
            .with("next_offset", part.next_offset)
            .with("dropped_bytes", part.dropped)
            .with("truncated", part.more || part.dropped > 0)
    }

    /// All sessions, a line for each.
    pub(super) fn of_all(sessions: &BTreeMap<String, Session>) -> Self {
        let mut text = String::new();
        let mut all = Vec::new();
        for (name, session) in sessions {
            let state = session.state();
            let size = state.screen.size();
            let end = state.end.map_or_else(|| "runs".to_owned(), |end| Told(end).to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}: {}x{}, {end}", size.cols, size.rows);
            all.push(Value::Object(Self::of(name, &state).data));
        }
        Self { text, ..Self::default() }.with("sessions", all)
    }

    pub(super) fn done(self, network: Network) -> Outcome {
        self.ended(Ended::Exited, CausedBy::Policy, String::new(), network)
    }

    pub(super) fn ended(
        self,
        ended: Ended,
        caused_by: CausedBy,
        error: String,
        network: Network,
    ) -> Outcome {
        let code = (ended == Ended::Exited).then_some(i32::from(!error.is_empty()));
        Outcome {
            body: Body::Screen(self.text),
            data: Some(Value::Object(self.data)),
            error,
            ended,
            caused_by,
            exit_code: code,
            signal: None,
            network,
            usage: Usage::default(),
        }
    }
}
