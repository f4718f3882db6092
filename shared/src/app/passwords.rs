//! Hashes passwords with Argon2id (RFC 9106), a bounded number at once, so that a storm of sign-ins
//! can't take the processors away from buying. Sign-ins and registrations wait in separate queues,
//! so that neither blocks the other.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};

use super::fair_queue::{FairTurns, Turn, half_of_the_processors};
use crate::{
    domain::{AddressPrefix, Phone},
    problem::Problem,
};

/// Stored in place of a hash: no password matches it.
pub(super) const NO_PASSWORD: &str = "!";

/// The queue that a password waits in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    /// Sign-ins and password changes.
    SignIn,
    /// Registrations.
    Registration,
}

const QUEUES: usize = 2;

pub(super) struct Passwords {
    turns: FairTurns,
    /// A hash that is verified for unknown users, so that both answers take the same time.
    decoy: String,
}

impl Passwords {
    /// `at_once` 0 stands for half of the processors; `waiting_max` bounds each queue.
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Self {
        let at_once = if at_once == 0 { half_of_the_processors() } else { at_once };
        // Not the hash of any password: salt and output are arbitrary, only the cost matters.
        let decoy = "$argon2id$v=19$m=19456,t=2,p=1$c29tZS1zYWx0LWhlcmU$aGVyZS1pcy1hLWRlY295LW9mLTMyLWJ5dGVzLWxlbmc".to_owned();
        Self { turns: FairTurns::new(at_once, QUEUES, waiting_max), decoy }
    }

    /// Whether the sign-in queue is so full that the next sign-ins need a captcha.
    pub(super) fn sign_ins_pile_up(&self) -> bool {
        self.turns.half_full(Queue::SignIn as usize)
    }

    /// The hash of a new password, in PHC string form.
    pub(super) async fn hash(
        &self,
        queue: Queue,
        prefix: AddressPrefix,
        password: String,
        salt: [u8; 16],
    ) -> Result<String, Problem> {
        let turn = self.turn(queue, prefix).await?;
        run(turn, move || {
            let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(|error| {
                tracing::error!(%error, "password hashing failed");
                Problem::Internal
            })
        })
        .await?
    }

    /// Whether the password matches `hash`; without a hash `false`, after the same time.
    pub(super) async fn verify(
        &self,
        turn: Turn,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Problem> {
        let usable = hash.filter(|hash| hash != NO_PASSWORD);
        let known = usable.is_some();
        let hash = usable.unwrap_or_else(|| self.decoy.clone());
        let matches = run(turn, move || match PasswordHash::new(&hash) {
            Ok(hash) => Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
            Err(error) => {
                tracing::error!(%error, "a stored password hash can't be read");
                Err(Problem::Internal)
            }
        })
        .await??;
        Ok(matches && known)
    }

    /// Waits for a turn to hash. A caller that is dropped while waiting gives up its place.
    pub(super) async fn turn(&self, queue: Queue, prefix: AddressPrefix) -> Result<Turn, Problem> {
        let turn = self.turns.turn(queue as usize, prefix).await;
        turn.ok_or(Problem::RateLimited { name: "passwords", quota: None, retry_after_ms: 2_000 })
    }

    /// Takes all turns, so that other callers wait.
    #[cfg(test)]
    pub(super) fn hold_all(&self) -> Vec<super::fair_queue::Turn> {
        std::iter::from_fn(|| self.turns.idle_turn()).collect()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self, queue: Queue) -> usize {
        self.turns.waiting(queue as usize)
    }
}

async fn run<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(move || {
        // The turn is returned when the work ends, not when the caller disconnects.
        let _turn = turn;
        work()
    });
    done.await.map_err(|error| {
        tracing::error!(%error, "password work ended early");
        Problem::Internal
    })
}

/// Checks a new password: its length, as NIST SP 800-63B requires, and that it is not among the
/// first guesses of an attacker.
pub(super) fn check_strength(
    field: &'static str,
    password: &str,
    phone: &Phone,
) -> Result<(), Problem> {
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
    let guessed = [
        "password",
        "12345678",
        "qwertyui",
        "iloveyou",
        "11111111",
        "88888888",
        "woaini1314",
        "5201314",
    ];
    if lower.chars().all(|char| Some(char) == first)
        || digits.contains(lower.as_str())
        || guessed.iter().any(|word| lower.starts_with(word) && chars < word.chars().count() + 4)
    {
        return weak(
            "not a password that is tried first: a repeated character, the phone number, or a common one",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn here() -> AddressPrefix {
        AddressPrefix::of(std::net::Ipv4Addr::LOCALHOST.into())
    }

    async fn verify(
        passwords: &Passwords,
        password: &str,
        hash: Option<&str>,
    ) -> Result<bool, Problem> {
        let turn = passwords.turn(Queue::SignIn, here()).await?;
        passwords.verify(turn, password.to_owned(), hash.map(str::to_owned)).await
    }

    #[tokio::test]
    async fn a_hash_opens_only_with_its_password() {
        let passwords = Passwords::new(1, 8);
        let hash = passwords
            .hash(Queue::Registration, here(), "correct horse".to_owned(), [7; 16])
            .await
            .unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify(&passwords, "correct horse", Some(&hash)).await.unwrap());
        assert!(!verify(&passwords, "wrong horse", Some(&hash)).await.unwrap());
        assert!(!verify(&passwords, "any", None).await.unwrap());
        assert!(!verify(&passwords, NO_PASSWORD, Some(NO_PASSWORD)).await.unwrap());
    }

    #[tokio::test]
    async fn too_many_are_refused_at_once() {
        let passwords = Arc::new(Passwords::new(1, 2));
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { verify(&passwords, "x", None).await })
            })
            .collect();
        let mut refused = 0;
        for call in calls {
            refused += usize::from(matches!(call.await.unwrap(), Err(Problem::RateLimited { .. })));
        }
        assert_eq!(refused, 4);
        assert!(verify(&passwords, "x", None).await.is_ok(), "there is room again");
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
