//! A container of ours, read from what the engine knows of it.

use crate::{
    engine::{Found, State},
    names::Marks,
    plan::{DIR, PORT_KEY, TOKEN_VARIABLE},
    settings::{DockerSettings, Reach},
};
use slotmux_backend::Address;
use std::net::{IpAddr, SocketAddr};

/// One that runs, or has ended and was not removed.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) marks: Marks,
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) has_memory_limit: bool,
    /// Its own, in which the server and the slots' files are.
    pub(crate) volume: Option<String>,
    /// `None`: it is on no network. So it is when it has ended.
    pub(crate) address: Option<Address>,
}

impl Container {
    /// `None`: it is not ours.
    pub(crate) fn read(settings: &DockerSettings, found: Found) -> Option<Self> {
        let marks = Marks::read(&settings.owner, &found.labels)?;
        let token = found.env.iter().find_map(|line| {
            line.strip_prefix(TOKEN_VARIABLE).and_then(|line| line.strip_prefix('='))
        })?;
        let address = authority(&settings.reach, &found)
            .map(|authority| Address { authority, token: token.to_owned() });
        let volume = found.volumes.get(DIR).cloned();
        let has_memory_limit = settings.of_profile(&marks.labels.profile).memory_bytes_max > 0;
        Some(Self { marks, has_memory_limit, id: found.id, state: found.state, volume, address })
    }
}

/// As it was started, whatever the settings say by now.
pub(crate) fn authority(reach: &Reach, found: &Found) -> Option<String> {
    let Some((bound, port)) = found.ports.get(PORT_KEY) else {
        let address = found.networks.values().next()?;
        return address.parse().ok().map(|ip| SocketAddr::new(ip, crate::plan::PORT).to_string());
    };
    let host = match reach {
        Reach::Published(ports) => ports.host.clone().unwrap_or_else(|| ports.bind.to_string()),
        Reach::Address => match bound.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() => ip.to_string(),
            Ok(_) | Err(_) => "127.0.0.1".to_owned(),
        },
    };
    Some(match host.parse() {
        Ok(ip) => SocketAddr::new(ip, *port).to_string(),
        Err(_) => format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Ports;
    use std::collections::{BTreeMap, HashMap};

    fn found(networks: &[(&str, &str)], ports: &[(&str, &str, u16)]) -> Found {
        Found {
            id: "id".to_owned(),
            state: State::Running,
            pid: None,
            labels: HashMap::new(),
            env: Vec::new(),
            volumes: BTreeMap::new(),
            networks: networks.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect(),
            ports: ports
                .iter()
                .map(|(key, ip, port)| ((*key).to_owned(), ((*ip).to_owned(), *port)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn a_container_is_reached_as_it_was_started() {
        let published = |host: Option<&str>| {
            let bind = IpAddr::from([127, 0, 0, 1]);
            Reach::Published(Ports { bind, range: None, host: host.map(str::to_owned) })
        };
        let bridged = found(&[("bridge", "172.17.0.2")], &[]);
        assert_eq!(authority(&Reach::Address, &bridged).unwrap(), "172.17.0.2:8080");
        assert_eq!(authority(&published(None), &bridged).unwrap(), "172.17.0.2:8080");
        let six = found(&[("six", "fd00::2")], &[]);
        assert_eq!(authority(&Reach::Address, &six).unwrap(), "[fd00::2]:8080");
        let bound = found(&[("bridge", "172.17.0.2")], &[("8080/tcp", "0.0.0.0", 40_001)]);
        assert_eq!(authority(&published(None), &bound).unwrap(), "127.0.0.1:40001");
        assert_eq!(authority(&published(Some("far")), &bound).unwrap(), "far:40001");
        assert_eq!(authority(&Reach::Address, &bound).unwrap(), "127.0.0.1:40001");
        assert_eq!(authority(&Reach::Address, &found(&[], &[])), None);
    }
}
