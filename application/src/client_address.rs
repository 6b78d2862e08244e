//! Which address a client has, behind proxies or not, and how many connections come from it.
//!
//! Pure but for the lock around the counts. It must never believe what a client says about itself:
//! only what trusted proxies have added counts, read from the right.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

/// Entries that are looked at, from the right; the chain of proxies in front of one server is
/// shorter.
pub const HOPS_MAX: usize = 32;

/// A range of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

/// A text is no network.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "must be an address like 10.0.0.1 or a network like 10.0.0.0/8, with nothing behind its prefix"
)]
pub struct NetworkError;

impl Network {
    /// Reads an address, or the first address of a network with the length of its prefix.
    ///
    /// # Errors
    /// [`NetworkError`], also for an address within the network instead of its first.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| NetworkError)?;
        // Addresses are compared in their canonical form, so that of IPv4 within IPv6 never fits.
        if first.to_canonical() != first {
            return Err(NetworkError);
        }
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().filter(|prefix| *prefix <= bits).ok_or(NetworkError)?
            }
            Some(_) => return Err(NetworkError),
        };
        let network = Self { first, prefix };
        (network.begin_of(first) == first).then_some(network).ok_or(NetworkError)
    }

    /// The first address of the network of this size that an address is in.
    fn begin_of(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix.min(32)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix.min(128)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.begin_of(address) == self.first
    }
}

/// Which header the proxies keep. The others pass through them as the client wrote them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239
    Forwarded,
}

impl ForwardedHeader {
    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// The proxies whose word counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// What they keep.
    pub header: ForwardedHeader,
}

impl TrustedProxies {
    /// Whether somebody is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client's address: of those that the header names and the peer, the rightmost that is no
    /// trusted proxy. `lines` are the header's values in their order. What can't be read ends the
    /// walk, and then the address of the proxy that passed it on counts.
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        lines: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        let entries = lines.rev().flat_map(|line| line.rsplit(','));
        for entry in entries.take(HOPS_MAX) {
            if !self.contains(client) {
                break;
            }
            let address = match self.header {
                ForwardedHeader::XForwardedFor => address(entry.trim()),
                ForwardedHeader::Forwarded => forwarded_for(entry).and_then(address),
            };
            match address {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// The `for` of one element of `Forwarded`, without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let node = node.trim();
    match node.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(node),
    }
}

/// An address with a port or without; an IPv6 address stands in brackets or alone.
fn address(text: &str) -> Option<IpAddr> {
    let port_is_one = |port: &str| port.parse::<u16>().is_ok();
    let parsed = if let Some(rest) = text.strip_prefix('[') {
        let (inner, behind) = rest.split_once(']')?;
        let behind_ok = behind.is_empty() || behind.strip_prefix(':').is_some_and(port_is_one);
        inner.parse::<Ipv6Addr>().ok().filter(|_| behind_ok).map(IpAddr::V6)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        Some(address)
    } else {
        let (inner, port) = text.split_once(':')?;
        inner.parse().ok().filter(|_| port_is_one(port)).map(IpAddr::V4)
    };
    parsed.map(|address| address.to_canonical())
}

/// How many connections each address has. An IPv6 network of 64 bits is one: whoever has an
/// address there can have all of them. As large as there are connections counted in it.
#[derive(Debug, Default)]
pub struct AddressCounts {
    /// Held for one look-up, when a connection comes or goes.
    counts: Mutex<BTreeMap<IpAddr, u32>>,
}

impl AddressCounts {
    /// Counts a connection for as long as the answer lives; none when its address has `max`.
    #[must_use]
    pub fn admit(self: &Arc<Self>, address: IpAddr, max: u32) -> Option<CountedAddress> {
        let address = counted_as(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= max {
            // A new entry would be of a limit of zero.
            if *count == 0 {
                counts.remove(&address);
            }
            return None;
        }
        *count += 1;
        Some(CountedAddress { counts: Arc::clone(self), address })
    }

    /// How many addresses have connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What counts as one address: whoever has one of IPv6 has 2^64 of them.
pub(crate) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
    }
}

/// A connection in the count of its address.
pub struct CountedAddress {
    counts: Arc<AddressCounts>,
    address: IpAddr,
}

impl fmt::Debug for CountedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CountedAddress").field(&self.address).finish()
    }
}

impl Drop for CountedAddress {
    fn drop(&mut self) {
        let mut counts = self.counts.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"];
        let networks = networks.map(|text| Network::parse(text).unwrap()).to_vec();
        TrustedProxies { networks, header }
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = proxies(ForwardedHeader::XForwardedFor);
        proxies.client(ip(peer), lines.iter().copied()).to_string()
    }

    fn client_of_forwarded(peer: &str, lines: &[&str]) -> String {
        let proxies = proxies(ForwardedHeader::Forwarded);
        proxies.client(ip(peer), lines.iter().copied()).to_string()
    }

    #[test]
    fn a_network_has_an_address_and_nothing_behind_its_prefix() {
        for good in
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3", "10.1.2.3/32", "::/0", "::1", "fe80::/10"]
        {
            assert!(Network::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::/129",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "host",
        ] {
            assert_eq!(Network::parse(bad), Err(NetworkError), "{bad}");
        }
        let everything = Network::parse("0.0.0.0/0").unwrap();
        assert!(everything.contains(ip("255.255.255.255")) && !everything.contains(ip("::1")));
    }

    /// R09.
    #[test]
    fn who_is_no_proxy_is_not_believed() {
        assert_eq!(client("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(client("2001:db8:2::1", &["1.2.3.4"]), "2001:db8:2::1");
    }

    /// R09.
    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_clients() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.7 , 10.9.9.9"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "198.51.100.7,127.0.0.1"]), "198.51.100.7");
        // All of them are trusted: the one that is farthest away.
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    /// R09.
    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["2001:db8:2::1"]), "2001:db8:2::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8:2::1]:80"]), "2001:db8:2::1");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("2001:db8:1::5", &["198.51.100.7"]), "198.51.100.7");
    }

    /// R09.
    #[test]
    fn what_cannot_be_read_ends_the_walk_at_the_proxy_that_passed_it_on() {
        for garbage in ["", "unknown", "1.2.3", "1.2.3.4.5", "1.2.3.4:x", "[::1", "::1]", "-"] {
            assert_eq!(client("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage:?}");
            let line = format!("198.51.100.7, {garbage}, 10.0.0.2");
            assert_eq!(client("10.0.0.1", &[&line]), "10.0.0.2", "{garbage:?}");
        }
    }

    /// R09.
    #[test]
    fn of_a_thousand_hops_only_the_last_are_looked_at() {
        let spoofed = vec!["6.6.6.6"; 1_000].join(",");
        assert_eq!(client("10.0.0.1", &[&format!("{spoofed},198.51.100.7")]), "198.51.100.7");
        let chain = vec!["10.0.0.2"; 1_000].join(",");
        assert_eq!(client("10.0.0.1", &[&format!("198.51.100.7,{chain}")]), "10.0.0.2");
    }

    /// R09; RFC 7239.
    #[test]
    fn forwarded_is_read_where_it_is_the_proxies_header() {
        let one = |line: &str| client_of_forwarded("10.0.0.1", &[line]);
        assert_eq!(one("for=198.51.100.7"), "198.51.100.7");
        assert_eq!(one("For=\"198.51.100.7:4711\";proto=https"), "198.51.100.7");
        assert_eq!(one("proto=https; for=\"[2001:db8:2::1]:4711\""), "2001:db8:2::1");
        assert_eq!(one("for=6.6.6.6, for=198.51.100.7, for=10.0.0.4;by=10.0.0.1"), "198.51.100.7");
        for garbage in
            ["for=unknown", "for=_hidden", "proto=https", "198.51.100.7", "for=\"1.2.3.4"]
        {
            assert_eq!(one(garbage), "10.0.0.1", "{garbage:?}");
        }
        // A comma in quotes is no way to push an address to the right.
        assert_eq!(one("for=\"x, for=6.6.6.6\", for=198.51.100.7"), "198.51.100.7");
    }

    proptest! {
        #[test]
        fn no_header_changes_the_address_of_who_is_no_proxy(line in ".{0,200}") {
            prop_assert_eq!(client("203.0.113.9", &[&line]), "203.0.113.9");
        }

        #[test]
        fn what_stands_left_of_a_foreign_address_never_counts(line in ".{0,200}") {
            let line = format!("{line},198.51.100.7");
            prop_assert_eq!(client("10.0.0.1", &[&line]), "198.51.100.7");
        }
    }

    /// R06.
    #[test]
    fn an_address_has_as_many_connections_as_allowed_and_a_v6_network_is_one() {
        let counts = Arc::new(AddressCounts::default());
        let held: Vec<_> = (0..3).map(|_| counts.admit(ip("198.51.100.7"), 3)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(counts.admit(ip("::ffff:198.51.100.7"), 3).is_none());
        assert!(counts.admit(ip("198.51.100.8"), 3).is_some());
        let a = counts.admit(ip("2001:db8::1"), 2);
        let b = counts.admit(ip("2001:db8::2"), 2);
        assert!(a.is_some() && b.is_some());
        assert!(counts.admit(ip("2001:db8::3"), 2).is_none());
        assert!(counts.admit(ip("2001:db8:0:1::3"), 2).is_some());
        drop(held);
        assert!(counts.admit(ip("198.51.100.7"), 3).is_some());
    }

    /// R04.
    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let counts = Arc::new(AddressCounts::default());
        for n in 0..1_000_000_u32 {
            drop(counts.admit(IpAddr::V4(n.into()), 1));
            assert!(counts.admit(IpAddr::V4(n.into()), 0).is_none());
        }
        assert!(counts.is_empty());
    }
}
