//! Passwords: Argon2id (RFC 9106), a bounded number at once, so that a storm of sign-ins can't take the processors away
//! from buying.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::{domain::Phone, problem::Problem};

/// Marks a user that no password opens.
pub(super) const NO_PASSWORD: &str = "!";

/// As many as work that can wait may use; at least one.
pub(super) fn half_of_the_processors() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}

pub(super) struct Passwords {
    at_once: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    /// Verified in place of an unknown user's, so that both answers take the same time.
    decoy: String,
}

impl Passwords {
    /// `at_once` 0 stands for half of the processors.
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Self {
        let at_once = if at_once == 0 { half_of_the_processors() } else { at_once };
        // Not a hash of anything: salt and output are arbitrary, the cost is what counts.
        let decoy = "$argon2id$v=19$m=19456,t=2,p=1$c29tZS1zYWx0LWhlcmU$aGVyZS1pcy1hLWRlY295LW9mLTMyLWJ5dGVzLWxlbmc".to_owned();
        Self { at_once: Arc::new(Semaphore::new(at_once)), waiting: AtomicUsize::new(0), waiting_max, decoy }
    }

    /// The hash of a new password, in PHC string form.
    pub(super) async fn hash(&self, password: String, salt: [u8; 16]) -> Result<String, Problem> {
        self.run(move || {
            let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(|error| {
                tracing::error!(%error, "password hashing failed");
                Problem::Internal
            })
        })
        .await?
    }

    /// Whether the password is the one behind `hash`; always `false`, after the same time, without a hash.
    pub(super) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Problem> {
        let usable = hash.filter(|hash| hash != NO_PASSWORD);
        let known = usable.is_some();
        let hash = usable.unwrap_or_else(|| self.decoy.clone());
        let matches = self
            .run(move || match PasswordHash::new(&hash) {
                Ok(hash) => Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
                Err(error) => {
                    tracing::error!(%error, "a stored password hash can't be read");
                    Err(Problem::Internal)
                }
            })
            .await??;
        Ok(matches && known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let _waiting = Waiting::enter(&self.waiting, self.waiting_max)?;
        let permit = Arc::clone(&self.at_once).acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            // Given back when the work ends, not when the caller goes away.
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "password work ended early");
            Problem::Internal
        })
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Result<Self, Problem> {
        let here = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            return Err(Problem::RateLimited { name: "passwords", quota: None, retry_after_ms: 2_000 });
        }
        Ok(here)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The rules for a new password: length, as NIST SP 800-63B asks for, and none that is guessed first.
pub(super) fn check_strength(field: &'static str, password: &str, phone: &Phone) -> Result<(), Problem> {
    let weak = |rule| Err(Problem::WeakPassword { field, rule });
    const CHARS_MIN: usize = 8;
    const CHARS_MAX: usize = 128;
    let chars = password.chars().count();
    if chars < CHARS_MIN {
        return weak("at least 8 characters");
    }
    if chars > CHARS_MAX {
        return weak("at most 128 characters");
    }
    let lower = password.to_lowercase();
    let first = lower.chars().next();
    let digits = phone.as_str().trim_start_matches('+');
    let guessed = ["password", "12345678", "qwertyui", "iloveyou", "11111111", "88888888", "woaini1314", "5201314"];
    if lower.chars().all(|char| Some(char) == first)
        || digits.contains(lower.as_str())
        || guessed.iter().any(|word| lower.starts_with(word) && chars < word.chars().count() + 4)
    {
        return weak("not a password that is tried first: a repeated character, the phone number, or a common one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_opens_only_with_its_password() {
        let passwords = Passwords::new(1, 8);
        let hash = passwords.hash("correct horse".to_owned(), [7; 16]).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("any".to_owned(), None).await.unwrap());
        assert!(!passwords.verify(NO_PASSWORD.to_owned(), Some(NO_PASSWORD.to_owned())).await.unwrap());
    }

    #[tokio::test]
    async fn too_many_are_refused_at_once() {
        let passwords = Arc::new(Passwords::new(1, 2));
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { passwords.verify("x".to_owned(), None).await })
            })
            .collect();
        let mut refused = 0;
        for call in calls {
            refused += usize::from(matches!(call.await.unwrap(), Err(Problem::RateLimited { .. })));
        }
        assert_eq!(refused, 4);
        assert!(passwords.verify("x".to_owned(), None).await.is_ok(), "there is room again");
    }

    #[test]
    fn weak_passwords_are_named() {
        let phone = Phone::from_e164("+12015550123").unwrap();
        for weak in ["short", "aaaaaaaaaa", "12015550123", "2015550123", "Password1", "12345678"] {
            assert!(check_strength("password", weak, &phone).is_err(), "{weak}");
        }
        for good in ["correct horse", "Tr0ub4dor&3", "密码密码密码密马"] {
            assert!(check_strength("password", good, &phone).is_ok(), "{good}");
        }
    }
}
