//! Codes that prove a phone number: whoever reads the text message has the phone.

use std::fmt;

use super::{Phone, SmsId, Timestamp};

/// Digits of a code.
const DIGITS: usize = 6;
/// Digits at the end of a number that its range leaves out: a range is 10,000 numbers.
const RANGE_DIGITS: usize = 4;

/// The six digits that a text message carries. `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct PhoneCode(String);

impl PhoneCode {
    /// Makes a code from eight random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 8]) -> Self {
        // 2^64 is so much larger that each code is as likely as any other to within 10^-13.
        Self(format!("{:06}", u64::from_be_bytes(random) % 1_000_000))
    }

    /// Reads a code as a person types it: spaces and hyphens are ignored. `None` unless six digits
    /// are left.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let typed: String =
            text.chars().filter(|char| !char.is_whitespace() && *char != '-').take(16).collect();
        (typed.len() == DIGITS && typed.bytes().all(|byte| byte.is_ascii_digit()))
            .then_some(Self(typed))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PhoneCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneCode")
    }
}

/// A keyed hash of a number and its code: the only form in which a code is stored. `Debug` hides
/// it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeDigest(pub [u8; 32]);

impl fmt::Debug for CodeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeDigest")
    }
}

/// The code of a number, as the fast store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCode {
    /// The number that the code was sent to.
    pub phone: Phone,
    /// The code's keyed hash.
    pub digest: CodeDigest,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
    /// How often it may still be tried.
    pub attempts_left: u32,
}

/// A text message with a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// Its id: a gateway delivers messages with the same id once.
    pub sms_id: SmsId,
    /// Who gets it.
    pub phone: Phone,
    /// What it says.
    pub code: PhoneCode,
    /// When the code expires.
    pub expires_at: Timestamp,
}

/// The 10,000 numbers that differ in their last four digits only. Pumping, the fraud in which
/// messages are caused to numbers that earn their owner a share, uses whole ranges.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneRange(String);

impl PhoneRange {
    /// The range of a number.
    #[must_use]
    pub fn of(phone: &Phone) -> Self {
        let number = phone.as_str();
        Self(number[..number.len().saturating_sub(RANGE_DIGITS)].to_owned())
    }

    /// Reads a range that a store keeps as [`PhoneRange::as_str`]. `None` when it is not `+` and 4
    /// to 11 digits.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        ((4..=11).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| Self(text.to_owned()))
    }

    /// The digits that all its numbers begin with, after `+`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PhoneRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &self.0[..2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_six_digits() {
        for (random, code) in [([0; 8], "000000"), ([0, 0, 0, 0, 0, 0, 0, 42], "000042")] {
            assert_eq!(PhoneCode::from_random(random).as_str(), code);
        }
        assert_eq!(PhoneCode::from_random(999_999_u64.to_be_bytes()).as_str(), "999999");
        assert_eq!(PhoneCode::from_random(1_000_001_u64.to_be_bytes()).as_str(), "000001");
    }

    #[test]
    fn a_code_is_read_as_it_is_typed() {
        let read = |text| PhoneCode::parse(text).map(|code| code.0);
        for text in ["042137", " 042 137 ", "042-137", "0 4 2 1 3 7"] {
            assert_eq!(read(text).as_deref(), Some("042137"), "{text}");
        }
        for text in ["", "42137", "0421378", "04213a", "٠٤٢١٣٧", &"1".repeat(10_000)] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_is_ten_thousand_numbers() {
        let of = |text| PhoneRange::of(&Phone::from_e164(text).unwrap());
        assert_eq!(of("+12015550123").as_str(), "+1201555");
        assert_eq!(of("+12015550123"), of("+12015559999"));
        assert_ne!(of("+12015550123"), of("+12015540123"));
        assert_eq!(of("+8613812345678").as_str(), "+861381234");
        let range = of("+8613812345678");
        assert_eq!(PhoneRange::from_stored(range.as_str()), Some(range));
        assert_eq!(PhoneRange::from_stored("+12x"), None);
    }

    #[test]
    fn debug_hides_codes_and_numbers() {
        let sms = Sms {
            sms_id: SmsId::new(Timestamp::from_epoch_ms(1), &[7; 10]),
            phone: Phone::from_e164("+12015550123").unwrap(),
            code: PhoneCode::parse("042137").unwrap(),
            expires_at: Timestamp::from_epoch_ms(2),
        };
        let shown =
            format!("{sms:?} {:?} {:?}", PhoneRange::of(&sms.phone), CodeDigest([0x42; 32]));
        assert!(!shown.contains("042137") && !shown.contains("201555"), "{shown}");
        assert!(!shown.contains("66"), "{shown}");
    }
}
