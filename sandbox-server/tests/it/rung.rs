//! The rungs that each scenario is run on, and the macros that make a named test of each pair.

use crate::server::{Failed, Server, Setup};
use tokio::sync::OnceCell;

/// As whom a server is started, and which walls it is told to put up.
pub(crate) struct Rung {
    pub(crate) name: &'static str,
    /// The rung of the ladder; `None` takes the best that there is.
    pub(crate) isolation: Option<&'static str>,
    pub(crate) user: User,
    /// Why it cannot be had here; found out once.
    refused: OnceCell<Option<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    /// Root's tests start it as somebody without an account; others as themselves.
    Ordinary,
    /// Whoever runs the tests.
    Whoever,
}

impl Rung {
    const fn new(name: &'static str, isolation: Option<&'static str>, user: User) -> Self {
        Self { name, isolation, user, refused: OnceCell::const_new() }
    }

    pub(crate) fn is_namespaces(&self) -> bool {
        self.isolation == Some("namespaces")
    }

    pub(crate) fn is_none(&self) -> bool {
        self.isolation == Some("none")
    }

    /// Whether a server stands on this rung here. Says so where it does not.
    pub(crate) async fn is_offered(&'static self) -> bool {
        let refused = self.refused.get_or_init(|| async { self.find_out().err() }).await;
        let Some(why) = refused else { return true };
        println!("skipped: {}: {why}", self.name);
        let owed = self.user != User::Root || rustix::process::geteuid().is_root();
        let ci = std::env::var("CI").is_ok_and(|it| it == "true");
        assert!(!(owed && ci), "{} is not offered here, and CI must have it: {why}", self.name);
        false
    }

    fn find_out(&'static self) -> Result<(), String> {
        if self.user == User::Root && !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let own_user = !rustix::process::geteuid().is_root();
        if own_user && self.isolation == Some("landlock") && !crate::host::scopes_abstract_sockets()
        {
            return Err(
                "this kernel's Landlock keeps no signals from the user of the tests".to_owned()
            );
        }
        match Server::try_start(self, Setup { slots: 1, ..Setup::default() }) {
            Ok(_) => Ok(()),
            Err(Failed { log }) if log.contains("no isolation of at least") => Err(log),
            Err(failed) => panic!("{}: the server does not start: {failed:?}", self.name),
        }
    }
}

pub(crate) static NAMESPACES_AS_ROOT: Rung =
    Rung::new("namespaces_as_root", Some("namespaces"), User::Root);
pub(crate) static UID_AS_ROOT: Rung = Rung::new("uid_as_root", Some("uid"), User::Root);
pub(crate) static NAMESPACES_AS_USER: Rung =
    Rung::new("namespaces_as_user", Some("namespaces"), User::Ordinary);
pub(crate) static LANDLOCK_AS_USER: Rung =
    Rung::new("landlock_as_user", Some("landlock"), User::Ordinary);
pub(crate) static NONE: Rung = Rung::new("none", Some("none"), User::Whoever);
/// For what has nothing to do with walls.
pub(crate) static ANY: Rung = Rung::new("any", None, User::Whoever);

/// A test of each scenario on each rung that its list is for: `rung::scenario` in the module.
macro_rules! scenarios {
    (
        $(everywhere: [$($every:ident),* $(,)?])?
        $(behind_walls: [$($walled:ident),* $(,)?])?
        $(in_namespaces: [$($spaced:ident),* $(,)?])?
    ) => {
        crate::rung::on_rung!(namespaces_as_root, NAMESPACES_AS_ROOT,
            [$($($every)*)? $($($walled)*)? $($($spaced)*)?]);
        crate::rung::on_rung!(namespaces_as_user, NAMESPACES_AS_USER,
            [$($($every)*)? $($($walled)*)? $($($spaced)*)?]);
        crate::rung::on_rung!(uid_as_root, UID_AS_ROOT, [$($($every)*)? $($($walled)*)?]);
        crate::rung::on_rung!(landlock_as_user, LANDLOCK_AS_USER, [$($($every)*)? $($($walled)*)?]);
        crate::rung::on_rung!(none, NONE, [$($($every)*)?]);
    };
}

macro_rules! on_rung {
    ($module:ident, $rung:ident, []) => {};
    ($module:ident, $rung:ident, [$($name:ident)+]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    let rung = &crate::rung::$rung;
                    if rung.is_offered().await {
                        super::$name(rung).await;
                    }
                }
            )+
        }
    };
}

pub(crate) use {on_rung, scenarios};
