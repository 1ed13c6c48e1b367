//! Words for a shell.

/// `word` as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// One word is a script; several are a command with its arguments.
pub(crate) fn script(words: &[String]) -> String {
    match words {
        [script] => script.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_words_back() {
        let words = ["printf", "%s|", "", "a b", "it's", "$HOME", "`x`", "\\", "ü", "-n", "a\nb"];
        let script = script(&words.map(str::to_owned));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "|a b|it's|$HOME|`x`|\\|ü|-n|a\nb|");
    }

    #[test]
    fn a_single_word_is_a_script() {
        assert_eq!(script(&["echo $HOME; ls".to_owned()]), "echo $HOME; ls");
    }
}
