//! `--network` and `--allow`: a list is kept to, or the server does not start.

use crate::egress::{AllowList, RuleError};
use slotmux_protocol::{Isolation, Network};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("--allow: {0}")]
    Rule(#[source] RuleError),
    #[error("--network allow needs at least one --allow; --network off allows nothing")]
    NothingAllowed,
    #[error("--allow is for --network allow")]
    NotAsked,
    #[error(
        "--network allow can be held only on the rung `namespaces`, where a slot has a network of \
         its own, and not on `{0}`"
    )]
    NotHeld(Isolation),
    #[error(
        "--network off cannot be held on the rung `none`: nothing there keeps a command from it"
    )]
    NotKeptOff,
}

/// What slots are let out to, where that is a list.
pub(super) fn allowed(
    network: Network,
    rules: &[String],
    isolation: Option<Isolation>,
) -> Result<Option<Arc<AllowList>>, NetworkError> {
    if network == Network::Off && isolation == Some(Isolation::None) {
        return Err(NetworkError::NotKeptOff);
    }
    if network != Network::AllowList {
        return if rules.is_empty() { Ok(None) } else { Err(NetworkError::NotAsked) };
    }
    if rules.is_empty() {
        return Err(NetworkError::NothingAllowed);
    }
    if let Some(rung) = isolation.filter(|rung| *rung < Isolation::Namespaces) {
        return Err(NetworkError::NotHeld(rung));
    }
    AllowList::parse(rules).map(|list| Some(Arc::new(list))).map_err(NetworkError::Rule)
}

/// The lowest rung that holds it.
pub(super) fn minimum(network: Network, asked: Isolation) -> Isolation {
    match network {
        Network::AllowList => Isolation::Namespaces,
        // Without any wall there is nothing that could keep it off.
        Network::Off => asked.max(Isolation::Landlock),
        Network::On => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_with_its_setting_and_with_a_rung_that_holds_it() {
        let rules = ["x.org".to_owned()];
        let list = |network, rules: &[String], rung| allowed(network, rules, rung);
        assert!(list(Network::AllowList, &rules, None).unwrap().is_some());
        assert!(list(Network::AllowList, &rules, Some(Isolation::Namespaces)).unwrap().is_some());
        assert!(list(Network::Off, &[], None).unwrap().is_none());
        for rung in [Isolation::Uid, Isolation::Landlock, Isolation::None] {
            let error = list(Network::AllowList, &rules, Some(rung)).unwrap_err();
            assert!(matches!(error, NetworkError::NotHeld(it) if it == rung), "{error}");
        }
        let error = list(Network::AllowList, &[], None).unwrap_err();
        assert!(matches!(error, NetworkError::NothingAllowed), "{error}");
        for network in [Network::On, Network::Off] {
            let error = list(network, &rules, None).unwrap_err();
            assert!(matches!(error, NetworkError::NotAsked), "{error}");
        }
        assert_eq!(minimum(Network::AllowList, Isolation::None), Isolation::Namespaces);
        assert_eq!(minimum(Network::Off, Isolation::Landlock), Isolation::Landlock);
        assert_eq!(minimum(Network::Off, Isolation::None), Isolation::Landlock);
        assert_eq!(minimum(Network::On, Isolation::None), Isolation::None);
        let open = list(Network::Off, &[], Some(Isolation::None)).unwrap_err();
        assert!(matches!(open, NetworkError::NotKeptOff), "{open}");
    }
}
