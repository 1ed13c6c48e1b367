//! The data directory is apart from what slots are shown.
//!
//! What is shown is shown to all of them: files of slots that lie in it, or around it, would be
//! within everybody's reach.

use std::path::{Component, Path, PathBuf};

/// What commands need to run: each slot sees these, where they exist.
const SYSTEM: [&str; 11] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/proc",
];

/// The shown directory that `data_dir` lies in or around, if there is one.
pub(super) fn shown_with(data_dir: &Path, exposed: &[PathBuf]) -> Option<PathBuf> {
    let data_dir = canonical(data_dir);
    let system = SYSTEM.iter().map(Path::new);
    let mut shown = system.chain(exposed.iter().map(AsRef::as_ref));
    shown
        .find(|it| {
            let shown = canonical(it);
            data_dir.starts_with(&shown) || shown.starts_with(&data_dir)
        })
        .map(Path::to_owned)
}

/// Without links as far as it exists; the rest is as it will be made.
fn canonical(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut known = PathBuf::new();
    for component in path.components() {
        match component {
            // After links are resolved, as the kernel does it.
            Component::ParentDir => {
                known.pop();
            }
            Component::CurDir => {}
            other => {
                known.push(other);
                if let Ok(real) = known.canonicalize() {
                    known = real;
                }
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn shown(data_dir: impl AsRef<Path>, exposed: &[&Path]) -> Option<PathBuf> {
        let exposed: Vec<_> = exposed.iter().map(|it| it.to_path_buf()).collect();
        shown_with(data_dir.as_ref(), &exposed)
    }

    #[test]
    fn system_directories_are_shown_and_their_neighbours_are_not() {
        for dir in ["/usr", "/opt/none-such", "/etc/a/b", "/usr/../usr/x", "/tmp/../opt/x", "/"] {
            assert!(shown(dir, &[]).is_some(), "{dir}");
        }
        for dir in ["/data", "/var/lib/none-such", "/optional", "/opt/../data", "/tmp/usr/x"] {
            assert_eq!(shown(dir, &[]), None, "{dir}");
        }
    }

    #[test]
    fn an_exposed_directory_may_lie_beside_it_but_not_within_or_around() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("data/inner")).unwrap();
        fs::create_dir(at("data-of-others")).unwrap();
        assert_eq!(shown(at("data"), &[&at("data-of-others")]), None);
        assert_eq!(shown(at("data-of-others/new"), &[&at("data")]), None);
        assert_eq!(shown(at("data"), &[&at("data/inner")]), Some(at("data/inner")));
        assert_eq!(shown(at("data/new/deep"), &[&at("data")]), Some(at("data")));
        assert_eq!(shown(at("data"), &[&at("data")]), Some(at("data")));
        assert_eq!(shown(at("data"), &[Path::new("/")]), Some("/".into()));
    }

    #[test]
    fn links_hide_nothing() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("real/inner")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        symlink("/usr", at("system")).unwrap();
        assert_eq!(shown(at("system/share/new"), &[]), Some("/usr".into()));
        assert_eq!(shown(at("link/new"), &[&at("real")]), Some(at("real")));
        assert_eq!(shown(at("real/new"), &[&at("link")]), Some(at("link")));
        // The parent of what the link points to.
        assert_eq!(shown(at("link/../beside"), &[&at("real")]), None);
        assert_eq!(shown(at("link/inner/../new"), &[&at("real")]), Some(at("real")));
    }
}
