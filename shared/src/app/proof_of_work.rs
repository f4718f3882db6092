//! Captchas answered by a proof of work, by ALTCHA's protocol (PoW v2).
//!
//! Each challenge is signed with a key of its own, which is stored until the captcha is answered or
//! expires. So a proof is good for this captcha only, nothing can be signed by anybody else, and no
//! key has to be shared or rotated. The server picks the number of the attempt that succeeds and
//! derives its key once: a client that tries one number after the other needs at most
//! `attempts_max` attempts, and a proof is checked by two HMACs.

use std::collections::BTreeMap;

use altcha::{
    Challenge, CreateChallengeOptions, HmacAlgorithm, Payload, VerifySolutionOptions,
    create_challenge, sign_challenge, verify_solution,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use subtle::ConstantTimeEq as _;

use crate::{
    domain::{CaptchaId, Timestamp, WorkParameters},
    ports::{Random, StoreError, Stored},
};

/// The crate's name for the derivation.
const ALGORITHM: &str = "PBKDF2/SHA-256";
/// Bytes of the key that signs a challenge, and as many of the one that signs its solution.
const KEY_BYTES: usize = 32;

/// A challenge and the key that checks its answer.
pub(super) struct Work {
    pub(super) parameters: WorkParameters,
    pub(super) signature: String,
    pub(super) secret: String,
}

/// Makes a challenge, by one key derivation of `rounds` rounds: some milliseconds of processor
/// time.
pub(super) fn make(
    captcha_id: CaptchaId,
    expires_at: Timestamp,
    rounds: u32,
    attempts_max: u32,
    random: &dyn Random,
) -> Stored<Work> {
    let (mut number, mut key) = ([0; 8], [0; 2 * KEY_BYTES]);
    random.fill(&mut number);
    random.fill(&mut key);
    // The remainder prefers no attempt noticeably: 64 bits against at most 20.
    let number = u64::from_be_bytes(number) % u64::from(attempts_max.max(1));
    let counter = u32::try_from(number).expect("it is below a number of 32 bits");
    let secret = BASE64.encode(key);
    let (challenge_key, solution_key) = keys(&secret);
    let data = BTreeMap::from([("captcha_id".to_owned(), captcha_id.to_string().into())]);
    let challenge = create_challenge(CreateChallengeOptions {
        algorithm: ALGORITHM.to_owned(),
        counter: Some(counter),
        cost: rounds,
        data: Some(data),
        expires_at: Some(expires_at.epoch_ms() / 1_000),
        hmac_key_signature_secret: Some(solution_key.to_owned()),
        hmac_signature_secret: Some(challenge_key.to_owned()),
        ..CreateChallengeOptions::default()
    })
    .map_err(|error| corrupt(&error.to_string()))?;
    let Challenge { parameters, signature } = challenge;
    Ok(Work {
        parameters: WorkParameters {
            algorithm: parameters.algorithm,
            captcha_id,
            cost: parameters.cost,
            expires_at: parameters.expires_at.unwrap_or_default(),
            key_length: parameters.key_length,
            key_prefix: parameters.key_prefix,
            key_signature: parameters.key_signature.unwrap_or_default(),
            nonce: parameters.nonce,
            salt: parameters.salt,
        },
        signature: signature.ok_or_else(|| corrupt("a challenge without a signature"))?,
        secret,
    })
}

/// Whether the answer, ALTCHA's payload in base64, proves the work of the challenge that was signed
/// with this secret.
pub(super) fn is_proved(secret: &str, answer: &str) -> bool {
    let payload = BASE64.decode(answer.trim()).ok();
    let payload = payload.and_then(|json| serde_json::from_slice::<Payload>(&json).ok());
    payload.is_some_and(|payload| verified(secret, payload).unwrap_or(false))
}

fn verified(secret: &str, payload: Payload) -> Result<bool, altcha::Error> {
    let Payload { challenge: Challenge { mut parameters, signature }, solution } = payload;
    let (challenge_key, solution_key) = keys(secret);
    let mut sign =
        || sign_challenge(&HmacAlgorithm::Sha256, &mut parameters, None, challenge_key, None);
    let (given, own) = (signature.unwrap_or_default(), sign()?.signature.unwrap_or_default());
    if !bool::from(given.as_bytes().ct_eq(own.as_bytes())) {
        return Ok(false);
    }
    // The crate compares a challenge's end with the machine's clock. The captcha's own end has been
    // checked with ours, so the crate gets the challenge without one.
    parameters.expires_at = None;
    let endless =
        sign_challenge(&HmacAlgorithm::Sha256, &mut parameters, None, challenge_key, None)?;
    let options = VerifySolutionOptions {
        hmac_key_signature_secret: Some(solution_key.to_owned()),
        ..VerifySolutionOptions::new(&endless, &solution, challenge_key)
    };
    Ok(verify_solution(options)?.verified)
}

/// The keys that sign a challenge and its solution.
fn keys(secret: &str) -> (&str, &str) {
    secret.split_at(secret.len() / 2)
}

fn corrupt(cause: &str) -> StoreError {
    StoreError::Corrupt { store: "altcha", cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use altcha::{SolveChallengeOptions, solve_challenge};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        adapters::system::SystemRandom,
        testing::{START, captcha_id, work_answer},
    };

    fn made(attempts_max: u32) -> Work {
        make(captcha_id(), START.plus_ms(1_000), 200, attempts_max, &SystemRandom).unwrap()
    }

    fn challenge(work: &Work) -> Value {
        json!({ "parameters": work.parameters, "signature": work.signature })
    }

    fn answer(payload: &Value) -> String {
        BASE64.encode(payload.to_string())
    }

    #[test]
    fn the_proof_of_a_challenge_is_good_for_this_challenge() {
        let (work, other) = (made(50), made(50));
        let good = work_answer(&challenge(&work));
        assert!(is_proved(&work.secret, &good));
        assert!(is_proved(&work.secret, &format!(" {good}\n")));
        assert!(!is_proved(&other.secret, &good), "each challenge has its own key");
        for wrong in ["", "x", "{}", &BASE64.encode("{}"), &BASE64.encode("[]"), &good[1..]] {
            assert!(!is_proved(&work.secret, wrong), "{wrong}");
        }
    }

    #[test]
    fn nothing_of_a_proof_can_be_changed() {
        let work = made(50);
        let good = BASE64.decode(work_answer(&challenge(&work))).unwrap();
        let good: Value = serde_json::from_slice(&good).unwrap();
        assert!(is_proved(&work.secret, &answer(&good)));
        let key = "0".repeat(64);
        for (path, value) in [
            ("/solution/derivedKey", json!(key)),
            ("/solution/derivedKey", json!("")),
            ("/solution/derivedKey", json!("not hex")),
            ("/challenge/parameters/expiresAt", json!(0)),
            ("/challenge/parameters/cost", json!(1)),
            ("/challenge/parameters/keyPrefix", json!("")),
            ("/challenge/parameters/keySignature", json!("")),
            ("/challenge/parameters/keySignature", Value::Null),
            ("/challenge/parameters/data/captcha_id", json!(captcha_id())),
            ("/challenge/signature", json!("")),
            ("/challenge/signature", Value::Null),
        ] {
            let mut bent = good.clone();
            *bent.pointer_mut(path).unwrap() = value;
            assert!(!is_proved(&work.secret, &answer(&bent)), "{path}");
        }
        // Unsigned, with an easy prefix and the key that belongs to it.
        let mut easy: Challenge = serde_json::from_value(good["challenge"].clone()).unwrap();
        easy.parameters.key_prefix.clear();
        easy.parameters.key_signature = None;
        let solution = solve_challenge(SolveChallengeOptions::new(&easy)).unwrap().unwrap();
        let forged = json!({ "challenge": easy, "solution": solution });
        assert!(!is_proved(&work.secret, &answer(&forged)));
    }

    #[test]
    fn no_proof_takes_more_attempts_than_the_setting_says() {
        let mut most = 0;
        for _ in 0..60 {
            let work = made(8);
            let challenge: Challenge = serde_json::from_value(challenge(&work)).unwrap();
            let options = SolveChallengeOptions::new(&challenge);
            let solution = solve_challenge(options).unwrap().unwrap();
            assert!(solution.counter < 8, "{}", solution.counter);
            most = most.max(solution.counter);
        }
        assert!(most >= 4, "attempts are spread: {most}");
    }

    #[test]
    fn a_challenge_says_nothing_of_its_key_and_ends_with_its_captcha() {
        let work = made(5);
        let shown = challenge(&work).to_string();
        let (first, second) = keys(&work.secret);
        assert!(first.len() >= KEY_BYTES && second.len() >= KEY_BYTES);
        assert!(!shown.contains(first) && !shown.contains(second));
        assert_eq!(work.parameters.expires_at, START.plus_ms(1_000).epoch_ms() / 1_000);
        assert_ne!(made(5).secret, work.secret);
    }
}
