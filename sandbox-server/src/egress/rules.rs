//! What `--allow` says: names with their subdomains, addresses, networks; each with its ports.

use super::address::not_public;
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

const RULES_MAX: usize = 1_000;
/// Where a rule names no port.
const USUAL_PORTS: [u16; 2] = [443, 80];
/// Of a name; the DNS has no longer ones.
const NAME_BYTES_MAX: usize = 253;
/// Of the list, in the text of a refusal.
const TOLD_MAX: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowList {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// As it was written.
    text: String,
    to: To,
    /// `None`: the usual ones.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    Name(String),
    /// All below it, and not itself: `.example.org`.
    Below(String),
    Network {
        first: IpAddr,
        bits: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("`{0}` is no host name, `*.` with a name, address, or network in CIDR form")]
    Host(String),
    #[error("`{0}`: a port is a number between 1 and 65535")]
    Port(String),
    #[error("`{0}`: a network has at most as many bits as its address, and none beyond them set")]
    Network(String),
    #[error("at most {RULES_MAX} rules")]
    TooMany,
}

/// Why a destination is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{host}:{port} is not on this slot's allow-list: {list}")]
    NotListed { host: String, port: u16, list: String },
    #[error(
        "{host}:{port} is allowed by `{rule}`, but its address {ip} is {kind}: only a rule for \
         that address would open it"
    )]
    NotPublic { host: String, port: u16, rule: String, ip: IpAddr, kind: &'static str },
}

/// What a client wants to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    /// In lower case, without a dot at its end.
    Name(String),
}

impl Host {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if let Some(inside) = bare {
            return inside
                .parse::<Ipv6Addr>()
                .ok()
                .map(|ip| Self::Ip(IpAddr::V6(ip).to_canonical()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self::Ip(ip.to_canonical()));
        }
        name(text).map(Self::Name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
    };
    (name.len() <= NAME_BYTES_MAX && name.split('.').all(label)).then_some(name)
}

impl AllowList {
    pub(crate) fn parse(rules: &[String]) -> Result<Self, RuleError> {
        if rules.len() > RULES_MAX {
            return Err(RuleError::TooMany);
        }
        let rules = rules.iter().map(|text| Rule::parse(text.trim()));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The rule that lets a host be looked for at all, before its address is known.
    pub(super) fn permits_host(&self, host: &Host, port: u16) -> Result<&str, Refused> {
        let rule = self.rules.iter().find(|rule| rule.is_for(host, port));
        rule.map(|rule| rule.text.as_str()).ok_or_else(|| Refused::NotListed {
            host: host.to_string(),
            port,
            list: self.to_string(),
        })
    }

    /// Whether a host that `rule` permits may be reached at this address.
    pub(super) fn permits_address(
        &self,
        host: &Host,
        rule: &str,
        ip: IpAddr,
        port: u16,
    ) -> Result<(), Refused> {
        let Some(kind) = not_public(ip) else { return Ok(()) };
        let named = Host::Ip(ip.to_canonical());
        if self.rules.iter().any(|rule| rule.is_for(&named, port)) {
            return Ok(());
        }
        let (host, rule) = (host.to_string(), rule.to_owned());
        Err(Refused::NotPublic { host, port, rule, ip, kind })
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, rule) in self.rules.iter().take(TOLD_MAX).enumerate() {
            write!(f, "{}{}", if number == 0 { "" } else { ", " }, rule.text)?;
        }
        match self.rules.len().saturating_sub(TOLD_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError::Host(text.to_owned());
        let (host, port) = split_port(text);
        let port = match port {
            None => None,
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 && digits.bytes().all(|it| it.is_ascii_digit()) => Some(port),
                _ => return Err(RuleError::Port(text.to_owned())),
            },
        };
        let to = if let Some((address, bits)) = host.split_once('/') {
            network(address, bits).ok_or_else(|| RuleError::Network(text.to_owned()))?
        } else if let Some(below) = host.strip_prefix("*.") {
            let name = name(below).filter(|it| !is_numeric(it)).ok_or_else(wrong)?;
            To::Below(format!(".{name}"))
        } else {
            match Host::parse(host).ok_or_else(wrong)? {
                Host::Ip(first) => To::Network { first, bits: width(first) },
                Host::Name(name) if is_numeric(&name) => return Err(wrong()),
                Host::Name(name) => To::Name(name),
            }
        };
        Ok(Self { text: text.to_owned(), to, port })
    }

    fn is_for(&self, host: &Host, port: u16) -> bool {
        let port_fits = match self.port {
            Some(own) => own == port,
            None => USUAL_PORTS.contains(&port),
        };
        port_fits
            && match (&self.to, host) {
                (To::Name(own), Host::Name(name)) => own == name,
                (To::Below(end), Host::Name(name)) => {
                    name.len() > end.len() && name.ends_with(end.as_str())
                }
                (To::Network { first, bits }, Host::Ip(ip)) => {
                    first.is_ipv4() == ip.is_ipv4() && prefix(*ip, *bits) == prefix(*first, *bits)
                }
                _ => false,
            }
    }
}

/// A bare IPv6 address has colons of its own.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(end) = text.find(']') {
        let (host, rest) = text.split_at(end + 1);
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        // A network is written within the brackets.
        let host = bare.filter(|it| it.contains('/')).unwrap_or(host);
        return match rest {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':').unwrap_or(""))),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// C libraries take a name whose last part is a number for an address, in forms of their own.
fn is_numeric(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|it| it.is_ascii_digit()) || last.starts_with("0x")
}

fn network(address: &str, bits: &str) -> Option<To> {
    let first: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let whole = bits <= width(first) && prefix(first, bits) == value(first);
    // IPv4 in the clothes of IPv6 would never be met: what is compared is its plain form.
    (whole && first.to_canonical() == first).then_some(To::Network { first, bits })
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn value(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn prefix(ip: IpAddr, bits: u8) -> u128 {
    let dropped = u32::from(width(ip) - bits);
    let mask = u128::MAX.checked_shl(dropped).unwrap_or(0);
    value(ip) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rules: &[&str]) -> AllowList {
        let rules: Vec<_> = rules.iter().map(|it| (*it).to_owned()).collect();
        AllowList::parse(&rules).unwrap()
    }

    fn permits(list: &AllowList, host: &str, port: u16) -> bool {
        list.permits_host(&Host::parse(host).unwrap(), port).is_ok()
    }

    #[test]
    fn names_are_matched_whole_and_without_regard_to_case() {
        let list = list(&["PyPI.org", "*.pythonhosted.org", "internal.example:8443"]);
        for (host, port) in [
            ("pypi.org", 443),
            ("PYPI.ORG.", 80),
            ("files.pythonhosted.org", 443),
            ("a.b.pythonhosted.org", 443),
            ("internal.example", 8_443),
        ] {
            assert!(permits(&list, host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("pypi.org", 22),
            ("notpypi.org", 443),
            ("pypi.org.evil.com", 443),
            ("pythonhosted.org", 443),
            ("evilpythonhosted.org", 443),
            ("internal.example", 443),
            ("1.1.1.1", 443),
        ] {
            assert!(!permits(&list, host, port), "{host}:{port}");
        }
    }

    #[test]
    fn addresses_and_networks_are_matched_by_value() {
        let list = list(&["192.0.2.7", "10.0.0.0/8:8080", "::1:80", "[fd00::/8]:443", "[::2]:5"]);
        for (host, port) in [
            ("192.0.2.7", 443),
            ("10.255.0.1", 8_080),
            ("[::ffff:10.0.0.1]", 8_080),
            ("[fd12::1]", 443),
            ("[::2]", 5),
        ] {
            assert!(permits(&list, host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("192.0.2.8", 443),
            ("11.0.0.1", 8_080),
            ("10.0.0.1", 443),
            ("[fe00::1]", 443),
            ("3221225991", 443),
            ("0xc0.0.2.7", 443),
        ] {
            assert!(!permits(&list, host, port), "{host}:{port}");
        }
        let all = super::AllowList::parse(&["0.0.0.0/0".to_owned()]).unwrap();
        assert!(permits(&all, "1.2.3.4", 443) && !permits(&all, "[2606::1]", 443));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (text, error) in [
            ("", RuleError::Host(String::new())),
            ("*", RuleError::Host("*".into())),
            ("*.*.org", RuleError::Host("*.*.org".into())),
            ("a.*.org", RuleError::Host("a.*.org".into())),
            ("http://x.org", RuleError::Port("http://x.org".into())),
            ("x.org:0", RuleError::Port("x.org:0".into())),
            ("x.org:65536", RuleError::Port("x.org:65536".into())),
            ("x.org:+80", RuleError::Port("x.org:+80".into())),
            ("x.org:", RuleError::Port("x.org:".into())),
            ("[::1]80", RuleError::Port("[::1]80".into())),
            ("2130706433", RuleError::Host("2130706433".into())),
            ("127.1", RuleError::Host("127.1".into())),
            ("10.0.0.1/8", RuleError::Network("10.0.0.1/8".into())),
            ("10.0.0.0/33", RuleError::Network("10.0.0.0/33".into())),
            ("[::ffff:0.0.0.0/96]", RuleError::Network("[::ffff:0.0.0.0/96]".into())),
            ("x.org/8", RuleError::Network("x.org/8".into())),
        ] {
            assert_eq!(AllowList::parse(&[text.to_owned()]), Err(error), "{text}");
        }
        let many = vec!["x.org".to_owned(); RULES_MAX + 1];
        assert_eq!(AllowList::parse(&many), Err(RuleError::TooMany));
        assert!(AllowList::parse(&many[1..]).is_ok());
    }

    #[test]
    fn a_name_comes_to_what_is_not_public_only_by_a_rule_for_the_address() {
        let list = list(&["x.org", "10.0.0.0/8"]);
        let host = Host::Name("x.org".to_owned());
        let at = |ip: &str| list.permits_address(&host, "x.org", ip.parse().unwrap(), 443);
        assert_eq!(at("1.1.1.1"), Ok(()));
        assert_eq!(at("10.2.3.4"), Ok(()));
        assert_eq!(at("::ffff:10.2.3.4"), Ok(()));
        let refused = at("169.254.169.254").unwrap_err().to_string();
        assert!(refused.contains("`x.org`") && refused.contains("169.254.169.254"), "{refused}");
        assert!(at("::ffff:127.0.0.1").is_err() && at("fd00::1").is_err());
    }

    #[test]
    fn a_refusal_tells_what_is_allowed() {
        let list = list(&["x.org", "*.y.org:8080"]);
        let host = Host::parse("z.org").unwrap();
        let text = list.permits_host(&host, 443).unwrap_err().to_string();
        assert_eq!(text, "z.org:443 is not on this slot's allow-list: x.org, *.y.org:8080");
    }
}
