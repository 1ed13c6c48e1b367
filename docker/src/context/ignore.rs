//! `.dockerignore`, in its patterns: the last one that fits a path, or a directory above it,
//! decides.
//!
//! As <https://docs.docker.com/build/concepts/context/#dockerignore-files> has it.

use super::ContextError;
use globset::{GlobBuilder, GlobMatcher};
use std::{fs, io, path::Path};

const NAME: &str = ".dockerignore";
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("line {line}")]
    Line { line: usize, source: globset::Error },
    #[error("it has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
}

#[derive(Debug, Default)]
pub(super) struct Ignored {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    fits: GlobMatcher,
    /// With `!` in front.
    brings_back: bool,
}

/// Without such a file everything goes in.
pub(super) fn read(context: &Path) -> Result<Ignored, ContextError> {
    let path = context.join(NAME);
    let text = match fs::metadata(&path) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => {
            return Err(ContextError::Ignore { path, source: PatternError::TooLarge });
        }
        Ok(_) => fs::read_to_string(&path),
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => Ignored::parse(&text).map_err(|source| ContextError::Ignore { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ignored::default()),
        Err(source) => Err(ContextError::Read { path, source }),
    }
}

impl Ignored {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // Only in the first column.
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (brings_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
            let pattern = parts.collect::<Vec<_>>().join("/");
            if pattern.is_empty() {
                continue;
            }
            let mut glob = GlobBuilder::new(&pattern);
            let glob = glob.literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|source| PatternError::Line { line: index + 1, source })?;
            patterns.push(Pattern { fits: glob.compile_matcher(), brings_back });
        }
        Ok(Self { patterns })
    }

    pub(super) fn leaves_out(&self, name: &Path) -> bool {
        let fits = |pattern: &&Pattern| {
            name.ancestors()
                .filter(|above| !above.as_os_str().is_empty())
                .any(|above| pattern.fits.is_match(above))
        };
        self.patterns.iter().rev().find(fits).is_some_and(|pattern| !pattern.brings_back)
    }

    /// Whether there may be something in a directory that is left out.
    pub(super) fn brings_back(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.brings_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_fits_decides() {
        let text = "# a comment\n\n*.log\n/target/\n**/cache\ndocs/**\n!docs/kept.md\n  temp?  \nsrc/*/gen\n!keep.log\n";
        let ignored = Ignored::parse(text).unwrap();
        for (name, left_out) in [
            ("a.log", true),
            ("keep.log", false),
            ("dir/a.log", false),
            ("target", true),
            ("target/debug/x", true),
            ("sub/target", false),
            ("cache", true),
            ("deep/down/cache/file", true),
            ("docs/page.md", true),
            ("docs/kept.md", false),
            ("temp1", true),
            ("temp12", false),
            ("src/a/gen/x", true),
            ("src/a/b/gen", false),
            ("# a comment", false),
        ] {
            assert_eq!(ignored.leaves_out(Path::new(name)), left_out, "{name}");
        }
        assert!(ignored.brings_back());
        let PatternError::Line { line, .. } = Ignored::parse("fine\n[").unwrap_err() else {
            panic!("no line")
        };
        assert_eq!(line, 2);
    }
}
