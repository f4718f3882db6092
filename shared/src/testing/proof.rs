//! Solves proofs of work as ALTCHA's widget does.

use altcha::{Challenge, SolveChallengeOptions, solve_challenge};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

/// The answer to a challenge, which is an object with `parameters` and `signature`.
#[must_use]
pub fn work_answer(challenge: &Value) -> String {
    let challenge = json!({
        "parameters": challenge["parameters"],
        "signature": challenge["signature"],
    });
    let parsed: Challenge =
        serde_json::from_value(challenge.clone()).expect("a challenge of the protocol");
    let solution = solve_challenge(SolveChallengeOptions::new(&parsed));
    let solution =
        solution.expect("a challenge that can be solved").expect("a challenge is solved in time");
    BASE64.encode(json!({ "challenge": challenge, "solution": solution }).to_string())
}
