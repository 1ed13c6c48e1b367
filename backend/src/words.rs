//! What backends say of what went wrong.

use std::error::Error;

/// Of a log, in the reason of an end.
const LINES_MAX: usize = 5;
const LINE_CHARS_MAX: usize = 200;

/// An error with its causes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The end of a log in one line: a container's last words.
pub fn last_lines(log: &str) -> String {
    let mut lines: Vec<String> = log
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(LINES_MAX)
        .map(|line| line.trim().chars().take(LINE_CHARS_MAX).collect())
        .collect();
    lines.reverse();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_few_and_short() {
        let lines: Vec<String> =
            (0..100).map(|n| format!("line {n} {}", "x".repeat(500))).collect();
        let words = last_lines(&lines.join("\n\n"));
        assert!(words.starts_with("line 95 "), "{words}");
        assert_eq!(words.split(" | ").count(), LINES_MAX);
        assert!(words.len() <= LINES_MAX * (LINE_CHARS_MAX + 3));
    }
}
