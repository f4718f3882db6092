//! Networks and the addresses in them.

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
    /// Whether the network is wider than any that one operator has.
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
        let wrong = || format!("{text:?} is not a network: expected an address or address/bits such as 10.0.0.0/8");
        let (address, bits) = text.split_once('/').map_or((text.as_str(), None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let mapped = match address {
            IpAddr::V6(address) => address.to_ipv4_mapped(),
            IpAddr::V4(_) => None,
        };
        // Addresses are compared as IPv4 where they are that.
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

/// Whether no packet of the public internet comes from the address or goes to it.
#[must_use]
pub const fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // 100.64.0.0/10 is what carriers and clouds use inside.
            address.is_private() || address.is_loopback() || address.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
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
        for wrong in ["::ffff:10.0.0.0/95", "::ffff:10.0.0.0/129", "::ffff:10.0.0.0/x", "10.0.0.0/33"] {
            assert!(network(wrong).unwrap_err().contains("is not a network"), "{wrong}");
        }
    }

    #[test]
    fn private_addresses_are_known() {
        for private in ["127.0.0.1", "10.255.0.1", "172.31.0.1", "192.168.0.1", "169.254.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1"] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["0.0.0.0", "8.8.8.8", "172.32.0.1", "100.128.0.1", "203.0.113.1", "2001:db8::1", "::", "::ffff:8.8.8.8"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
