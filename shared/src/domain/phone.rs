//! Phone numbers of the United States and of mainland China, normalised to E.164.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;

use rlibphonenumber::{PhoneNumber, PhoneNumberFormat, PhoneNumberType, Region};

/// A country whose phone numbers are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Country {
    /// United States, `+1`.
    US,
    /// Mainland China, `+86`.
    CN,
}

impl Country {
    const fn region(self) -> Region {
        match self {
            Self::US => Region::US,
            Self::CN => Region::CN,
        }
    }
}

/// A valid phone number in E.164 form, such as `+12015550123`. Its `Debug` form hides all but the
/// last two digits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(into = "String")]
#[schema(value_type = String, pattern = r"^\+[0-9]{8,15}$", description = "A phone number in E.164 form, such as `+12015550123`.")]
pub struct Phone(String);

/// The text is not a phone number this product accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    /// No number can be read from it.
    #[error(
        "not a phone number: expected digits such as +1 201-555-0123 or 138 1234 5678 with country CN"
    )]
    Unreadable,
    /// A national number whose country is not known.
    #[error("country is needed: write the number with +1 or +86, or say country US or CN")]
    CountryNeeded,
    /// The digits are not a number that exists in the numbering plan of the country.
    #[error("not a number that can exist in its country")]
    Impossible,
    /// A number of some other country.
    #[error("only numbers of the United States (+1) and of mainland China (+86) can sign in")]
    OtherCountry,
    /// A toll-free, premium-rate or other number that belongs to no person, or a Chinese number
    /// that is not a mobile number.
    #[error(
        "must be a person's own number: an ordinary number in the United States, a mobile number in China"
    )]
    NotPersonal,
}

impl Phone {
    /// Reads a number in any usual notation: international (`+86 138 1234 5678`, `0086…`,
    /// `tel:+1-201-555-0123`), or national (`(201) 555-0123`, `13812345678`) when `country` is
    /// given.
    ///
    /// # Errors
    /// Says what is wrong with the text; never repeats it.
    pub fn parse(text: &str, country: Option<Country>) -> Result<Self, PhoneError> {
        const TEXT_BYTES_MAX: usize = 64;
        if text.len() > TEXT_BYTES_MAX {
            return Err(PhoneError::Unreadable);
        }
        // The international prefix is written `00` where no default region says so.
        let digits = text.trim().strip_prefix("00").map(|rest| format!("+{rest}"));
        let text = digits.as_deref().unwrap_or(text);
        let number =
            PhoneNumber::parse(text, country.map(Country::region)).map_err(
                |error| match error {
                    rlibphonenumber::ParseError::InvalidCountryCode
                        if country.is_none() && !has_plus(text) =>
                    {
                        PhoneError::CountryNeeded
                    }
                    rlibphonenumber::ParseError::InvalidCountryCode => PhoneError::OtherCountry,
                    _ => PhoneError::Unreadable,
                },
            )?;
        if number.extension.is_some() {
            return Err(PhoneError::NotPersonal);
        }
        if !matches!(number.country_code, 1 | 86) {
            return Err(PhoneError::OtherCountry);
        }
        if !number.is_valid() {
            return Err(PhoneError::Impossible);
        }
        let kind = number.get_type();
        match number.get_region_code() {
            Some(Region::US)
                if matches!(
                    kind,
                    PhoneNumberType::Mobile
                        | PhoneNumberType::FixedLine
                        | PhoneNumberType::FixedLineOrMobile
                ) =>
            {
                Self::from_e164(&number.format_as(PhoneNumberFormat::E164))
            }
            Some(Region::CN) if kind == PhoneNumberType::Mobile => {
                Self::from_e164(&number.format_as(PhoneNumberFormat::E164))
            }
            Some(Region::US | Region::CN) => Err(PhoneError::NotPersonal),
            _ => Err(PhoneError::OtherCountry),
        }
    }

    /// Reads a number in E.164 form, as stored by this product.
    ///
    /// # Errors
    /// When it is not `+` followed by 8 to 15 digits.
    pub fn from_e164(text: &str) -> Result<Self, PhoneError> {
        let digits = text.strip_prefix('+').ok_or(PhoneError::Unreadable)?;
        ((8..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| Self(text.to_owned()))
            .ok_or(PhoneError::Unreadable)
    }

    /// The E.164 form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn has_plus(text: &str) -> bool {
    text.contains(['+', '\u{ff0b}'])
}

impl FromStr for Phone {
    type Err = PhoneError;

    fn from_str(text: &str) -> Result<Self, PhoneError> {
        Self::from_e164(text)
    }
}

impl From<Phone> for String {
    fn from(phone: Phone) -> String {
        phone.0
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.0.len().saturating_sub(2);
        write!(f, "{}…{}", &self.0[..2], &self.0[hidden..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_notations_become_e164() {
        let cases = [
            ("+1 201-555-0123", None, "+12015550123"),
            ("+1 (201) 555-0123", None, "+12015550123"),
            ("tel:+1-201-555-0123", None, "+12015550123"),
            ("(201) 555-0123", Some(Country::US), "+12015550123"),
            ("201.555.0123", Some(Country::US), "+12015550123"),
            ("1 201 555 0123", Some(Country::US), "+12015550123"),
            ("011 86 138 1234 5678", Some(Country::US), "+8613812345678"),
            ("+86 138 1234 5678", None, "+8613812345678"),
            ("+8613812345678", Some(Country::US), "+8613812345678"),
            ("0086 138-1234-5678", None, "+8613812345678"),
            ("008613812345678", Some(Country::US), "+8613812345678"),
            ("138 1234 5678", Some(Country::CN), "+8613812345678"),
            ("13812345678", Some(Country::CN), "+8613812345678"),
            ("86 13812345678", Some(Country::CN), "+8613812345678"),
            ("＋８６ １３８ １２３４ ５６７８", None, "+8613812345678"),
        ];
        for (text, country, expected) in cases {
            assert_eq!(
                Phone::parse(text, country).map(|phone| phone.0),
                Ok(expected.to_owned()),
                "{text} {country:?}"
            );
        }
    }

    #[test]
    fn refusals_say_why() {
        let cases = [
            ("", None, PhoneError::Unreadable),
            ("hello", Some(Country::US), PhoneError::Unreadable),
            ("13812345678", None, PhoneError::CountryNeeded),
            ("+1 555 123 4567", None, PhoneError::Impossible),
            ("+86 12345678901", None, PhoneError::Impossible),
            ("+44 20 7946 0958", None, PhoneError::OtherCountry),
            ("+1 416 555 0123", None, PhoneError::OtherCountry),
            ("+1 800 253 0000", None, PhoneError::NotPersonal),
            ("+86 10 8888 8888", None, PhoneError::NotPersonal),
            ("+1 201-555-0123 ext. 9", None, PhoneError::NotPersonal),
        ];
        for (text, country, expected) in cases {
            assert_eq!(Phone::parse(text, country), Err(expected), "{text} {country:?}");
        }
        assert_eq!(
            Phone::parse(&"1".repeat(10_000), Some(Country::US)),
            Err(PhoneError::Unreadable)
        );
    }

    #[test]
    fn debug_hides_the_number() {
        let shown = format!("{:?}", Phone::parse("+1 201-555-0123", None).unwrap());
        assert!(!shown.contains("201555"), "{shown}");
    }
}
