//! When a session is done with what was typed.
//!
//! Our shells say so themselves: see `sieve`. A mark counts if it came after the last line that
//! was typed and the shell found nothing more to read when it made it. So `wait` is exact and does
//! not guess from silence, as long as the shell's `PROMPT_COMMAND` is left alone.

use super::sieve::{Mark, prefix};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How long the prompt may take to be written after the mark of the command's end.
const PROMPT_PATIENCE: Duration = Duration::from_millis(250);
/// The same after a prompt without our mark: somebody has changed `PS1`.
const OTHER_PROMPT_PATIENCE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Progress {
    phase: Phase,
    /// The shell makes marks.
    marked: bool,
    prompt_patience: Duration,
    exit_code: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Busy,
    /// The command is over; the prompt is being written, and not waited for any longer than this.
    Prompting(Instant),
    Ready,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Busy,
            marked: false,
            prompt_patience: PROMPT_PATIENCE,
            exit_code: None,
        }
    }

    /// To be called before the program can have read it.
    pub(crate) fn typed(&mut self, bytes: &[u8]) {
        // What makes a shell write another prompt: Enter, C-j, C-o, and C-c.
        if bytes.iter().any(|it| matches!(it, b'\r' | b'\n' | 0x0f | 0x03)) {
            if let Phase::Prompting(_) = self.phase {
                self.prompt_patience = OTHER_PROMPT_PATIENCE;
            }
            self.phase = Phase::Busy;
        }
    }

    pub(crate) fn note(&mut self, mark: Mark, now: Instant) {
        self.marked = true;
        match mark {
            Mark::Done { exit_code, pending } => {
                self.exit_code = Some(exit_code);
                let patience = self.prompt_patience;
                self.phase = if pending { Phase::Busy } else { Phase::Prompting(now + patience) };
            }
            // A prompt is also written anew, at C-l or when the screen is resized.
            Mark::Prompt => {
                self.prompt_patience = PROMPT_PATIENCE;
                if let Phase::Prompting(_) = self.phase {
                    self.phase = Phase::Ready;
                }
            }
        }
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.marked
    }

    /// Of the last command.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    pub(crate) fn is_done(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Busy => false,
            Phase::Prompting(until) => now >= until,
            Phase::Ready => true,
        }
    }

    /// When it is done without another mark.
    pub(crate) fn done_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Prompting(until) => Some(until),
            Phase::Busy | Phase::Ready => None,
        }
    }
}

/// What to run for a shell at `path`, and the environment that makes it say when it is done.
pub(crate) fn interactive(path: &str, nonce: &str) -> (String, BTreeMap<String, String>) {
    let mark = prefix(nonce);
    let (prompt, options, mut env) = if is_bash(path) {
        let prompt = format!("$ \\[{mark}P\x07\\]");
        (prompt, "--norc --noprofile -i", bash_environment(nonce))
    } else {
        // It cannot tell whether more was typed.
        (format!("{mark}D;$?;0\x07$ {mark}P\x07"), "-i", BTreeMap::new())
    };
    // The shell that we are run by is none to type to, and takes the prompt away.
    env.insert("SLOTMUX_PROMPT".to_owned(), prompt);
    let take = "export PS1=\"$SLOTMUX_PROMPT\"; unset SLOTMUX_PROMPT";
    (format!("{take}; exec '{path}' {options}"), env)
}

/// For a command of a client that is a bash itself.
pub(crate) fn environment_for(command: &str, nonce: &str) -> BTreeMap<String, String> {
    let first = command.split_whitespace().next().unwrap_or_default();
    if is_bash(first) { bash_environment(nonce) } else { BTreeMap::new() }
}

fn is_bash(path: &str) -> bool {
    path.rsplit('/').next() == Some("bash")
}

/// The mark of a command's end comes before the prompt, which has a mark at its own end, so that
/// who waits sees all of it.
fn bash_environment(nonce: &str) -> BTreeMap<String, String> {
    // Unaliased, without traces of `set -x`, and not for what the shell itself starts. `read -t 0`
    // reads nothing: it says whether there is something to read.
    let prompt_command = format!(
        "{{ builtin printf '\\e]6973;{nonce};D;%s;' \"$?\"; \
         if builtin read -t 0; then builtin printf '1\\a'; else builtin printf '0\\a'; fi; \
         builtin bind 'set enable-bracketed-paste off'; \
         builtin export -n PROMPT_COMMAND PS1; }} 2>/dev/null"
    );
    let env = [("PROMPT_COMMAND", prompt_command), ("HISTFILE", String::new())];
    env.map(|(name, value)| (name.to_owned(), value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Mark = Mark::Done { exit_code: 3, pending: false };
    const PENDING: Mark = Mark::Done { exit_code: 2, pending: true };

    fn ready() -> (Progress, Instant) {
        let (mut progress, now) = (Progress::new(), Instant::now());
        progress.note(DONE, now);
        progress.note(Mark::Prompt, now);
        (progress, now)
    }

    #[test]
    fn it_is_done_when_the_prompt_stands_after_the_last_command() {
        let (mut progress, now) = ready();
        assert!(progress.is_done(now));
        progress.typed(b"echo x");
        assert!(progress.is_done(now), "nothing was entered yet");
        progress.typed(b"\r");
        assert!(!progress.is_done(now));
        progress.note(PENDING, now);
        progress.note(Mark::Prompt, now);
        assert!(!progress.is_done(now), "more was typed");
        progress.note(DONE, now);
        assert!(!progress.is_done(now), "the prompt is not there yet");
        progress.note(Mark::Prompt, now);
        assert_eq!((progress.is_done(now), progress.exit_code()), (true, Some(3)));
    }

    #[test]
    fn a_prompt_that_is_written_anew_says_nothing() {
        let (mut progress, now) = ready();
        progress.typed(b"sleep 1\r");
        progress.note(Mark::Prompt, now);
        assert!(!progress.is_done(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_prompt_of_the_users_own_is_not_waited_for_without_end() {
        let mut progress = Progress::new();
        let now = Instant::now();
        progress.note(DONE, now);
        let at = progress.done_at().unwrap();
        assert!(!progress.is_done(now) && progress.is_done(at));
        progress.typed(b"\r");
        progress.note(DONE, now);
        assert!(progress.done_at().unwrap() < at, "it is known by now");
    }

    #[test]
    fn a_bash_is_known_by_its_name() {
        assert!(interactive("/bin/bash", "n").1.contains_key("PROMPT_COMMAND"));
        assert!(!interactive("/bin/sh", "n").1.contains_key("PROMPT_COMMAND"));
        assert!(!environment_for("bash --login", "n").is_empty());
        assert!(environment_for("python3 -q", "n").is_empty());
    }
}
