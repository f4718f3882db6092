//! Networks and their addresses.

use std::net::IpAddr;

use serde::Deserialize;

/// A network, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether the network is wider than any single operator's.
    pub(super) const fn is_too_wide(&self) -> bool {
        let bits_min = if self.address.is_ipv4() { 8 } else { 7 };
        self.prefix_bits < bits_min
    }

    /// Whether the address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a network: expected an address or address/bits such as 10.0.0.0/8"
            )
        };
        let (address, bits) = text
            .split_once('/')
            .map_or((text.as_str(), None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let mapped = match address {
            IpAddr::V6(address) => address.to_ipv4_mapped(),
            IpAddr::V4(_) => None,
        };
        // IPv4 addresses mapped into IPv6 are compared as IPv4.
        let (address, bits) = match (mapped, bits) {
            (None, bits) => (address, bits.map(str::to_owned)),
            (Some(ipv4), None) => (IpAddr::V4(ipv4), None),
            (Some(ipv4), Some(bits)) => {
                let bits: u8 = bits.parse().map_err(|_| wrong())?;
                (IpAddr::V4(ipv4), Some(bits.checked_sub(96).ok_or_else(wrong)?.to_string()))
            }
        };
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Ok(bits_max), |bits| bits.parse()).map_err(|_| wrong())?;
        if prefix_bits > bits_max {
            return Err(wrong());
        }
        Ok(Self { address, prefix_bits })
    }
}

/// Whether the address is not used on the public internet.
#[must_use]
pub const fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // 100.64.0.0/10 is used inside the networks of carriers and clouds.
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// Returns the first address of this machine that is not private.
///
/// # Errors
/// When the kernel's lists can't be read.
pub fn public_address_of_this_machine() -> std::io::Result<Option<IpAddr>> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie")?;
    // A kernel without IPv6 has no such list.
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    Ok(local_v4(&v4).chain(local_v6(&v6)).find(|address| !is_private(*address)))
}

/// The line `|-- 10.0.0.5` is followed by `/32 host LOCAL` if the address is the machine's own.
fn local_v4(list: &str) -> impl Iterator<Item = IpAddr> {
    let own =
        list.lines().zip(list.lines().skip(1)).filter(|(_, next)| next.trim() == "/32 host LOCAL");
    own.filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
}

/// Each line begins with 32 hexadecimal digits.
fn local_v6(list: &str) -> impl Iterator<Item = IpAddr> {
    let digits =
        list.lines().filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok());
    digits.map(|bits| IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_in_mapped_notation_hold_ipv4_addresses() {
        let network = |text: &str| Network::try_from(text.to_owned());
        for mapped in ["::ffff:10.0.0.0/104", "::ffff:10.1.2.3"] {
            assert!(network(mapped).unwrap().contains("10.1.2.3".parse().unwrap()), "{mapped}");
            assert!(!network(mapped).unwrap().contains("11.1.2.3".parse().unwrap()), "{mapped}");
        }
        for wrong in
            ["::ffff:10.0.0.0/95", "::ffff:10.0.0.0/129", "::ffff:10.0.0.0/x", "10.0.0.0/33"]
        {
            assert!(network(wrong).unwrap_err().contains("is not a network"), "{wrong}");
        }
    }

    #[test]
    fn own_addresses_are_read_from_the_kernels_lists() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 172.25.0.3\n        /32 host LOCAL\n     \
                    |-- 172.25.255.255\n        /32 link BROADCAST\n     |-- 8.8.8.8\n        /32 host LOCAL\n";
        assert_eq!(
            local_v4(trie).map(|address| address.to_string()).collect::<Vec<_>>(),
            ["172.25.0.3", "8.8.8.8"]
        );
        let list = "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000007 02 40 00 80     eth0\n";
        assert_eq!(
            local_v6(list).map(|address| address.to_string()).collect::<Vec<_>>(),
            ["::1", "2001:db8::7"]
        );
        public_address_of_this_machine().unwrap();
    }

    #[test]
    fn private_addresses_are_known() {
        for private in [
            "127.0.0.1",
            "10.255.0.1",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in [
            "0.0.0.0",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "203.0.113.1",
            "2001:db8::1",
            "::",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
