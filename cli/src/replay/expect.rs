//! Whether a call came to what was expected of it, and what its reward is.

use super::{outcome::Unmet, rollouts::Expect};
use slotmux_protocol::{CausedBy, Ended, Problem, ToolResult};

/// Of the output, in a report.
const SHOWN_CHARS_MAX: usize = 300;

/// What did not hold, of call `call` of the trajectory in `line`.
pub(crate) fn unmet(
    expect: &Expect,
    answer: &Result<ToolResult, Problem>,
    line: usize,
    call: usize,
) -> Vec<Unmet> {
    let seen = Seen::of(answer);
    let mut unmet = Vec::new();
    let mut miss = |expected: String, came: String| {
        let output = shortened(&seen.texts.join("\n"));
        unmet.push(Unmet { line, call: Some(call), expected, came, output });
    };
    if let Some(success) = expect.success
        && success != seen.success
    {
        miss(format!("success {success}"), format!("success {}{}", seen.success, seen.how()));
    }
    if let Some(code) = expect.exit_code
        && Some(code) != seen.exit_code
    {
        let came = seen.exit_code.map_or("none".to_owned(), |code| code.to_string());
        miss(format!("exit_code {code}"), format!("exit_code {came}{}", seen.how()));
    }
    if let Some(ended) = expect.ended
        && Some(ended) != seen.ended
    {
        let came = seen.ended.map_or("refused".to_owned(), name);
        miss(format!("ended {}", name(ended)), format!("ended {came}"));
    }
    if let Some(part) = &expect.output_contains
        && !seen.texts.iter().any(|text| text.contains(part.as_str()))
    {
        miss(format!("output with {:?}", shortened(part)), format!("other output{}", seen.how()));
    }
    unmet
}

/// What an answer looks like to an expectation. A call that was refused as wrong did not succeed.
struct Seen<'a> {
    success: bool,
    exit_code: Option<i32>,
    ended: Option<Ended>,
    texts: [&'a str; 2],
}

impl<'a> Seen<'a> {
    fn of(answer: &'a Result<ToolResult, Problem>) -> Self {
        match answer {
            Ok(result) => Self {
                success: result.success,
                exit_code: result.exit_code,
                ended: Some(result.ended),
                texts: [&result.output, &result.error],
            },
            Err(problem) => Self {
                success: false,
                exit_code: None,
                ended: None,
                texts: [&problem.detail, problem.code.as_str()],
            },
        }
    }

    fn how(&self) -> String {
        match (self.ended, self.exit_code) {
            (None, _) => " (refused)".to_owned(),
            (Some(Ended::Exited), Some(code)) => format!(" (exit code {code})"),
            (Some(ended), _) => format!(" ({})", name(ended)),
        }
    }
}

/// Exit code 0 is worth 1.0, another one 0.0; a number on stdout counts instead. A command that
/// the policy's own doing kept from ending is worth 0.0.
pub(crate) fn reward(result: &ToolResult) -> Option<f64> {
    if result.caused_by != CausedBy::Policy {
        return None;
    }
    let said = stdout(&result.output).trim().parse().ok().filter(|it: &f64| it.is_finite());
    match (result.ended, said) {
        (Ended::Exited, Some(said)) => Some(said),
        _ => Some(if result.success { 1.0 } else { 0.0 }),
    }
}

/// The output before the line that begins stderr.
fn stdout(output: &str) -> &str {
    match output.strip_prefix("[stderr]\n") {
        Some(_) => "",
        None => output.split_once("\n[stderr]\n").map_or(output, |(stdout, _)| stdout),
    }
}

pub(crate) fn name(ended: Ended) -> String {
    match ended {
        Ended::Exited => "exited",
        Ended::Signaled => "signaled",
        Ended::Timeout => "timeout",
        Ended::Oom => "oom",
        Ended::Pids => "pids",
        Ended::Disk => "disk",
        Ended::OutputLimit => "output_limit",
        Ended::Cancelled => "cancelled",
        Ended::Lost => "lost",
        Ended::Unknown => "unknown",
    }
    .to_owned()
}

pub(crate) fn shortened(text: &str) -> String {
    let text = text.trim();
    let chars = text.chars().count();
    if chars <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    let half = SHOWN_CHARS_MAX / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(chars - half).collect();
    format!("{head} … {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmux_protocol::{Code, ExecutionId, Isolation, Network, Usage};

    fn result(ended: Ended, exit_code: Option<i32>, output: &str) -> ToolResult {
        ToolResult {
            execution_id: ExecutionId::new("e").unwrap(),
            success: exit_code == Some(0),
            output: output.to_owned(),
            data: None,
            error: String::new(),
            ended,
            caused_by: CausedBy::Policy,
            exit_code,
            signal: None,
            isolation: Isolation::None,
            network: Network::Off,
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_reward_is_the_number_on_stdout_or_else_the_exit_code() {
        for (ended, code, output, worth) in [
            (Ended::Exited, Some(0), "", 1.0),
            (Ended::Exited, Some(1), "", 0.0),
            (Ended::Exited, Some(0), "0.25\n", 0.25),
            (Ended::Exited, Some(1), "0.5", 0.5),
            (Ended::Exited, Some(0), "-3e-1\n\n[stderr]\nwarning", -0.3),
            (Ended::Exited, Some(1), "[stderr]\n7", 0.0),
            (Ended::Exited, Some(0), "NaN", 1.0),
            (Ended::Exited, Some(0), "3 tests", 1.0),
            (Ended::Timeout, None, "0.9", 0.0),
            (Ended::Oom, None, "", 0.0),
        ] {
            assert_eq!(reward(&result(ended, code, output)), Some(worth), "{code:?} {output:?}");
        }
    }

    #[test]
    fn what_the_infrastructure_did_has_no_reward() {
        let lost = ToolResult { caused_by: CausedBy::Infra, ..result(Ended::Lost, None, "1.0") };
        assert_eq!(reward(&lost), None);
    }

    #[test]
    fn each_expectation_is_held_against_the_answer() {
        let expect = Expect {
            success: Some(true),
            exit_code: Some(0),
            output_contains: Some("green".to_owned()),
            ended: Some(Ended::Exited),
        };
        assert_eq!(unmet(&expect, &Ok(result(Ended::Exited, Some(0), "all green")), 1, 0), []);
        let came: Vec<_> = unmet(&expect, &Ok(result(Ended::Timeout, None, "red")), 7, 3)
            .into_iter()
            .map(|it| {
                format!("{}:{:?}: {}, {}; {}", it.line, it.call, it.expected, it.came, it.output)
            })
            .collect();
        assert_eq!(
            came,
            [
                "7:Some(3): success true, success false (timeout); red",
                "7:Some(3): exit_code 0, exit_code none (timeout); red",
                "7:Some(3): ended exited, ended timeout; red",
                "7:Some(3): output with \"green\", other output (timeout); red",
            ]
        );
    }

    #[test]
    fn a_refusal_is_no_success() {
        let refused = Err(Problem::new(Code::Invalid, "the path leaves the workspace"));
        let failing = Expect { success: Some(false), ..Expect::default() };
        assert_eq!(unmet(&failing, &refused, 1, 0), []);
        let ended = Expect { ended: Some(Ended::Exited), ..Expect::default() };
        assert_eq!(unmet(&ended, &refused, 1, 0).len(), 1);
    }

    #[test]
    fn a_long_output_is_shortened_in_its_middle() {
        let shown = shortened(&format!("begin{}end", "ü".repeat(1_000)));
        assert!(shown.starts_with("begin") && shown.ends_with("end"), "{shown}");
        assert_eq!(shown.chars().count(), SHOWN_CHARS_MAX + 3);
    }
}
