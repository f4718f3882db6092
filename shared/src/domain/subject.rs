//! The subjects of limits and bans.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use super::{AddressPrefix, Phone, PhoneRange, UserId};

/// The subject of a limit or a ban.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user.
    User(UserId),
    /// A client address, as [`Subject::address`] normalises it.
    Address(IpAddr),
    /// A network that holds the address: wider than [`Subject::Address`].
    Network(AddressPrefix),
    /// A phone number.
    Phone(Phone),
    /// A phone number tried from one address: limits password guessing without locking out the
    /// owner at other addresses.
    PhoneAt(Phone, IpAddr),
    /// A range of phone numbers: limits text messages to it.
    PhoneRange(PhoneRange),
}

/// The text names no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected kind user, address, network or phone with a value of that kind")]
pub struct SubjectError;

impl Subject {
    /// Normalises an address for limits: IPv4 stays (also when mapped into IPv6), IPv6 becomes its
    /// /64, because one subscriber holds a whole /64.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(normalised(ip))
    }

    /// What may be banned of a client's address: the address, and the networks around it, narrowest
    /// first.
    #[must_use]
    pub fn of_client(ip: IpAddr) -> Vec<Self> {
        let mut subjects = vec![Self::address(ip)];
        subjects.extend(AddressPrefix::around(ip).into_iter().map(Self::Network));
        subjects
    }

    /// Whether it is an address, or a network of addresses.
    #[must_use]
    pub const fn is_place(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Network(_))
    }

    /// A phone number tried from an address.
    #[must_use]
    pub fn phone_at(phone: Phone, ip: IpAddr) -> Self {
        Self::PhoneAt(phone, normalised(ip))
    }

    /// The word for the kind: `user`, `address`, `network`, `phone`, `phone-at` or `phone-range`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Address(_) => "address",
            Self::Network(_) => "network",
            Self::Phone(_) => "phone",
            Self::PhoneAt(..) => "phone-at",
            Self::PhoneRange(_) => "phone-range",
        }
    }

    /// The value in full, for keys and for the operator.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::User(id) => id.to_string(),
            Self::Address(ip) => ip.to_string(),
            Self::Network(prefix) => prefix.to_string(),
            Self::Phone(phone) => phone.as_str().to_owned(),
            Self::PhoneAt(phone, ip) => format!("{}@{ip}", phone.as_str()),
            Self::PhoneRange(range) => range.as_str().to_owned(),
        }
    }

    /// Parses the operator's input. A network of the width of an address is that address.
    ///
    /// # Errors
    /// When the kind is unknown or the value is not of that kind.
    pub fn parse(kind: &str, value: &str) -> Result<Self, SubjectError> {
        match kind {
            "user" => value.parse().map(Self::User).map_err(|_| SubjectError),
            "address" => value.parse().map(Self::address).map_err(|_| SubjectError),
            "network" => value
                .parse()
                .map(Self::Network)
                .or_else(|_| as_wide_as_an_address(value).map(Self::address).ok_or(SubjectError)),
            "phone" => Phone::parse(value, None).map(Self::Phone).map_err(|_| SubjectError),
            _ => Err(SubjectError),
        }
    }

    /// Reads a subject that a store keeps as [`Subject::kind`] and [`Subject::value`]. Unlike
    /// [`Subject::parse`], it does not repeat the validation that was done before storing.
    ///
    /// # Errors
    /// When the kind is unknown or the value is not of that kind.
    pub fn from_stored(kind: &str, value: &str) -> Result<Self, SubjectError> {
        match kind {
            "phone" => value.parse().map(Self::Phone).map_err(|_| SubjectError),
            "phone-at" => {
                let (phone, ip) = value.split_once('@').ok_or(SubjectError)?;
                Ok(Self::phone_at(
                    phone.parse().map_err(|_| SubjectError)?,
                    ip.parse().map_err(|_| SubjectError)?,
                ))
            }
            "phone-range" => {
                PhoneRange::from_stored(value).map(Self::PhoneRange).ok_or(SubjectError)
            }
            kind => Self::parse(kind, value),
        }
    }
}

/// The address of an IPv4 /32 or an IPv6 /64.
fn as_wide_as_an_address(text: &str) -> Option<IpAddr> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let fits = bits == if address.is_ipv4() { "32" } else { "64" };
    fits.then_some(address)
}

fn normalised(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user {id}"),
            Self::Address(ip) => write!(f, "address {ip}"),
            Self::Network(prefix) => write!(f, "network {prefix}"),
            Self::Phone(phone) => write!(f, "phone {phone:?}"),
            Self::PhoneAt(phone, ip) => write!(f, "phone {phone:?} at {ip}"),
            Self::PhoneRange(range) => write!(f, "phones {range:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn addresses_are_counted_by_subscriber() {
        let of = |text: &str| Subject::address(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }

    #[test]
    fn a_client_s_address_is_in_networks_of_several_widths() {
        let of = |text: &str| {
            let subjects = Subject::of_client(text.parse().unwrap());
            subjects.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>()
        };
        assert_eq!(of("192.0.2.7"), ["address 192.0.2.7", "network 192.0.2.0/24"]);
        assert_eq!(
            of("2001:db8:1:2ff::9"),
            ["address 2001:db8:1:2ff::", "network 2001:db8:1:200::/56", "network 2001:db8:1::/48"]
        );
        let network = |text: &str| Subject::parse("network", text);
        assert_eq!(network("192.0.2.7/32"), Subject::parse("address", "192.0.2.7"));
        assert_eq!(network("2001:db8:1:2::9/64"), Subject::parse("address", "2001:db8:1:2::"));
        for wrong in ["192.0.2.7", "192.0.2.0/16", "2001:db8::/32", "2001:db8::/128", "x/24"] {
            assert_eq!(network(wrong), Err(SubjectError), "{wrong}");
        }
    }

    #[test]
    fn stored_subjects_are_read_back() {
        // `parse` refuses this number: numbering plans change, but stored data must stay readable.
        let phone = Phone::from_e164("+15550000000").unwrap();
        let ip = "2001:db8:1:2::1".parse().unwrap();
        let user = UserId::new(Timestamp::from_epoch_ms(1), &[7; 10]);
        for subject in [
            Subject::User(user),
            Subject::address(ip),
            Subject::Network("2001:db8:1:200::/56".parse().unwrap()),
            Subject::Phone(phone.clone()),
            Subject::PhoneRange(PhoneRange::of(&phone)),
            Subject::phone_at(phone, ip),
        ] {
            assert_eq!(Subject::from_stored(subject.kind(), &subject.value()), Ok(subject));
        }
        assert_eq!(Subject::from_stored("phone", "12"), Err(SubjectError));
        assert_eq!(Subject::from_stored("group", "1"), Err(SubjectError));
    }
}
