//! Signed tokens: sessions and tickets, as JWT with HMAC-SHA256 (RFC 7515, RFC 7519).
//!
//! A token's signature is checked here, without a store. The caller checks the expiry, because an
//! expired ticket still names an order that may have been made from it. Verified session tokens are
//! kept, because a shopper sends the same one with every request.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use super::local_cache::LocalCache;
use crate::{
    config::SigningKey,
    domain::{Role, SessionId, UserId},
    ports::{Ports, Stored},
};

/// The claims of a session token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionClaims {
    /// The session's user.
    #[serde(rename = "sub")]
    pub user_id: UserId,
    /// The session's id.
    #[serde(rename = "sid")]
    pub session_id: SessionId,
    /// The user's role.
    pub role: Role,
    /// When the token was signed, in seconds since 1970.
    pub iat: i64,
    /// When the token expires, in seconds since 1970.
    pub exp: i64,
}

struct Key {
    signing: EncodingKey,
    verifying: DecodingKey,
    header: Header,
}

/// Keys of one purpose: the first signs, all verify.
pub(super) struct Keyring {
    keys: Vec<Key>,
    validation: Validation,
}

impl Keyring {
    pub(super) fn new(keys: &[SigningKey]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library would use the machine's clock; the caller checks with the injected one.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let keys = keys
            .iter()
            .map(|key| Key {
                signing: EncodingKey::from_secret(&key.secret),
                verifying: DecodingKey::from_secret(&key.secret),
                header: Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::HS256) },
            })
            .collect();
        Self { keys, validation }
    }

    /// HMAC-SHA256 of a message under the first key.
    pub(super) fn digest(&self, message: &[u8]) -> [u8; 32] {
        self.digests(message).next().expect("a keyring has at least one key")
    }

    /// HMAC-SHA256 of a message under each key.
    pub(super) fn digests(&self, message: &[u8]) -> impl Iterator<Item = [u8; 32]> {
        self.keys.iter().map(move |key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.signing.as_bytes());
            let tag = hmac::sign(&key, message);
            tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
        })
    }

    pub(super) fn sign<T: Serialize>(&self, claims: &T) -> String {
        let key = self.keys.first().expect("a keyring has at least one key");
        jsonwebtoken::encode(&key.header, claims, &key.signing)
            .expect("claims of plain fields can be written as JSON")
    }

    /// The token's claims, if one of the keys signed it.
    pub(super) fn verify<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let key = match self.keys.as_slice() {
            [only] => only,
            keys => {
                let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
                keys.iter().find(|key| key.header.kid.as_ref() == Some(&kid))?
            }
        };
        Some(jsonwebtoken::decode(token, &key.verifying, &self.validation).ok()?.claims)
    }
}

/// Most verified session tokens that are kept; each needs about half a kilobyte.
const VERIFIED_MAX: usize = 50_000;
/// How long a verified session token is kept.
const VERIFIED_LIFE: Duration = Duration::from_secs(600);

/// Session tokens that were verified lately, with their claims. The key is the whole token, so only
/// a token that has been verified is found.
pub(super) struct VerifiedSessions(LocalCache<Box<str>, SessionClaims>);

impl VerifiedSessions {
    pub(super) fn new() -> Self {
        Self(LocalCache::new(VERIFIED_MAX, VERIFIED_LIFE))
    }

    /// The token's claims, if one of the keys signed it.
    pub(super) fn verify(&self, keys: &Keyring, token: &str) -> Option<SessionClaims> {
        if let Some(claims) = self.0.get(token) {
            return Some(claims);
        }
        let claims: SessionClaims = keys.verify(token)?;
        self.0.insert(token.into(), claims.clone());
        Some(claims)
    }
}

/// The keys of one purpose. Configured keys are available at once. The development profile may have
/// none: then a key is made and stored in the ledger, which is asked only when a token is first
/// signed or verified.
pub(super) struct Keys {
    /// The key's name in the ledger.
    name: &'static str,
    ring: OnceCell<Keyring>,
}

impl Keys {
    pub(super) fn new(name: &'static str, configured: &[SigningKey]) -> Self {
        let ring = (!configured.is_empty()).then(|| Keyring::new(configured));
        Self { name, ring: OnceCell::new_with(ring) }
    }

    pub(super) async fn ring(&self, ports: &Ports) -> Stored<&Keyring> {
        let from_ledger = async || {
            let mut candidate = [0; 32];
            ports.random.fill(&mut candidate);
            let secret = ports.signing_keys.get_or_create(self.name, &candidate).await?;
            Ok(Keyring::new(&[SigningKey { kid: "dev".to_owned(), secret }]))
        };
        self.ring.get_or_try_init(from_ledger).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::TicketClaims, testing};

    fn key(kid: &str, byte: u8) -> SigningKey {
        SigningKey { kid: kid.to_owned(), secret: vec![byte; 32] }
    }

    fn claims() -> TicketClaims {
        TicketClaims {
            order_id: testing::order_id(),
            user_id: testing::user_id(),
            session_id: testing::session_id(),
            sale_id: testing::sale_id(),
            exp_ms: 1,
        }
    }

    #[test]
    fn only_our_unchanged_tokens_verify() {
        crate::crypto::install();
        let ring = Keyring::new(&[key("a", 1)]);
        let token = ring.sign(&claims());
        assert!(
            ring.verify::<TicketClaims>(&token).is_some(),
            "also an expired token: the caller checks the expiry"
        );
        assert!(Keyring::new(&[key("a", 2)]).verify::<TicketClaims>(&token).is_none());
        let (signed, mac) = token.rsplit_once('.').unwrap();
        assert!(ring.verify::<TicketClaims>(&format!("{signed}x.{mac}")).is_none());
        for garbage in ["", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            assert!(ring.verify::<TicketClaims>(garbage).is_none(), "{garbage}");
        }
    }

    #[test]
    fn a_kept_token_is_found_only_unchanged() {
        crate::crypto::install();
        let ring = Keyring::new(&[key("a", 1)]);
        let claims = |user_id| SessionClaims {
            user_id,
            session_id: testing::session_id(),
            role: Role::Shopper,
            iat: 1,
            exp: 2,
        };
        let (one, other) = (claims(testing::user_id()), claims(testing::user_id()));
        let (first, second) = (ring.sign(&one), ring.sign(&other));
        let verified = VerifiedSessions::new();
        for _ in 0..2 {
            let found = verified.verify(&ring, &first).unwrap();
            assert_eq!((found.user_id, found.session_id), (one.user_id, one.session_id));
            assert_eq!(verified.verify(&ring, &second).unwrap().user_id, other.user_id);
            let (signed, mac) = first.rsplit_once('.').unwrap();
            for forged in [format!("{signed}x.{mac}"), signed.to_owned(), format!("{first}x")] {
                assert!(verified.verify(&ring, &forged).is_none());
            }
            let foreign = Keyring::new(&[key("a", 2)]).sign(&one);
            assert!(verified.verify(&ring, &foreign).is_none());
        }
    }

    #[test]
    fn keys_can_be_rotated() {
        crate::crypto::install();
        let old = Keyring::new(&[key("old", 1)]).sign(&claims());
        let both = Keyring::new(&[key("new", 2), key("old", 1)]);
        assert!(both.verify::<TicketClaims>(&old).is_some());
        let digest = Keyring::new(&[key("old", 1)]).digest(b"message");
        assert!(both.digests(b"message").any(|made| made == digest));
        assert_ne!(both.digest(b"message"), digest, "the first key signs");
        assert!(both.digests(b"messagf").all(|made| made != digest));
        let new = both.sign(&claims());
        assert!(Keyring::new(&[key("new", 2)]).verify::<TicketClaims>(&new).is_some());
        assert!(
            Keyring::new(&[key("new", 2), key("newer", 3)]).verify::<TicketClaims>(&old).is_none()
        );
    }
}
