//! Keys that sign sessions and tickets.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use secrecy::{ExposeSecret as _, SecretString};

use super::error::{ConfigError, bad};

/// One signing key: its name in token headers, and its bytes.
#[derive(Clone)]
pub struct SigningKey {
    /// The `kid`.
    pub kid: String,
    /// At least 32 bytes.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Parses a list of keys.
pub(super) fn signing_keys(
    key: &'static str,
    list: &[SecretString],
) -> Result<Vec<SigningKey>, ConfigError> {
    const SECRET_BYTES_MIN: usize = 32;
    list.iter()
        .map(|entry| {
            let wrong =
                || bad(key, "expected \"kid:secret\" with the secret in base64, at least 32 bytes");
            let (kid, secret) = entry.expose_secret().split_once(':').ok_or_else(wrong)?;
            let secret = BASE64.decode(secret).map_err(|_| wrong())?;
            if kid.is_empty() || secret.len() < SECRET_BYTES_MIN {
                return Err(wrong());
            }
            Ok(SigningKey { kid: kid.to_owned(), secret })
        })
        .collect()
}
