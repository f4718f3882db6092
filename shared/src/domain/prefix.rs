//! Networks of addresses, as used for fairness, for bans and in the security log.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All addresses that begin with the same bits.
///
/// Where nothing else is said it is the /24 of an IPv4 address (also when mapped into IPv6), or the
/// /48 of an IPv6 address: about what one customer can rent at once, and too wide to name one
/// person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "203.0.113.0/24")]
pub struct AddressPrefix(Cut);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cut {
    network: IpAddr,
    bits: u8,
}

/// The text is no prefix of a known width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a prefix: expected an IPv4 address with /24, or an IPv6 address with /56 or /48")]
pub struct AddressPrefixError;

impl AddressPrefix {
    /// The /24 of an IPv4 address, the /48 of an IPv6 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6, 48),
        }
    }

    /// The prefixes of an address that bans and limits count, narrowest first: /24, or /56 and /48.
    /// The address itself (IPv6: its /64) is a [`Subject`](super::Subject) of its own.
    #[must_use]
    pub fn around(address: IpAddr) -> Vec<Self> {
        match address.to_canonical() {
            IpAddr::V4(v4) => vec![Self::of_v4(v4)],
            IpAddr::V6(v6) => vec![Self::of_v6(v6, 56), Self::of_v6(v6, 48)],
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Self {
        let network = Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into();
        Self(Cut { network, bits: 24 })
    }

    fn of_v6(v6: Ipv6Addr, bits: u8) -> Self {
        let mask = u128::MAX << (128 - u32::from(bits));
        Self(Cut { network: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), bits })
    }

    /// Its first address.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.0.network
    }

    /// Whether the address begins with the prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::around(address).contains(self)
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.network, self.0.bits)
    }
}

impl FromStr for AddressPrefix {
    type Err = AddressPrefixError;

    /// Any address of the prefix may stand before the slash.
    fn from_str(text: &str) -> Result<Self, AddressPrefixError> {
        let (address, bits) = text.split_once('/').ok_or(AddressPrefixError)?;
        let address: IpAddr = address.parse().map_err(|_| AddressPrefixError)?;
        match (address, bits) {
            (IpAddr::V4(v4), "24") => Ok(Self::of_v4(v4)),
            (IpAddr::V6(v6), "56") => Ok(Self::of_v6(v6, 56)),
            (IpAddr::V6(v6), "48") => Ok(Self::of_v6(v6, 48)),
            _ => Err(AddressPrefixError),
        }
    }
}

impl TryFrom<String> for AddressPrefix {
    type Error = AddressPrefixError;

    fn try_from(text: String) -> Result<Self, AddressPrefixError> {
        text.parse()
    }
}

impl From<AddressPrefix> for String {
    fn from(prefix: AddressPrefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_share_a_prefix() {
        let of = |text: &str| AddressPrefix::of(address(text)).to_string();
        assert_eq!(of("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(of("2001:db8:1:2:3::4"), "2001:db8:1::/48");
    }

    #[test]
    fn an_address_has_a_prefix_of_each_width() {
        let around = |text: &str| {
            AddressPrefix::around(address(text)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(around("192.0.2.77"), ["192.0.2.0/24"]);
        assert_eq!(around("2001:db8:1:2ff::4"), ["2001:db8:1:200::/56", "2001:db8:1::/48"]);
        let wide: AddressPrefix = "2001:db8:1::/48".parse().unwrap();
        assert!(wide.contains(address("2001:db8:1:2ff::4")));
        assert!(!wide.contains(address("2001:db8:2::4")));
        let v4: AddressPrefix = "192.0.2.0/24".parse().unwrap();
        assert!(v4.contains(address("::ffff:192.0.2.9")) && !v4.contains(address("192.0.3.9")));
    }

    #[test]
    fn prefixes_are_read_in_their_widths_only() {
        for (text, read) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("2001:db8:1:2ff::/56", "2001:db8:1:200::/56"),
            ("2001:db8:1:2::/48", "2001:db8:1::/48"),
        ] {
            assert_eq!(text.parse::<AddressPrefix>().unwrap().to_string(), read);
        }
        let wrong = ["", "192.0.2.0", "192.0.2.0/16", "192.0.2.0/024", "::/0", "2001:db8::/64"];
        for text in wrong {
            assert_eq!(text.parse::<AddressPrefix>(), Err(AddressPrefixError), "{text}");
        }
    }
}
