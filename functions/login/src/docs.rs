//! What the OpenAPI document says of this function.

use flashsale::{
    app::SignedIn,
    http::openapi::{Operation, delete, get, post, put},
};

use super::{Account, CurrentSession, PasswordChange, Registered};

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = ("Accounts", "Registration, sessions and passwords.");

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    let captcha = ["captcha-required", "captcha-gone", "captcha-wrong"];
    vec![
        post("/api/users", "register", "Registers a shopper.")
            .about("Does not sign in. A captcha of purpose `login` is needed unless captchas are off.")
            .body::<Account>()
            .gives::<Registered>(201, "The new user.")
            .refuses(&["invalid-phone", "weak-password", "phone-taken"])
            .refuses(&captcha),
        post("/api/sessions", "sign_in", "Signs in.")
            .about("A captcha of purpose `login` is needed after 3 failures with one phone number within 15 minutes.")
            .body::<Account>()
            .gives::<SignedIn>(201, "The session's token, which the cookie holds too.")
            .with_header("Set-Cookie", "The session, for browsers.")
            .refuses(&["invalid-phone", "bad-credentials"])
            .refuses(&captcha),
        get("/api/sessions/current", "current_session", "Whose session this is.")
            .signed()
            .gives::<CurrentSession>(200, "The user, and when the session is over."),
        delete("/api/sessions/current", "sign_out", "Signs out.")
            .signed()
            .gives_nothing("The session is over.")
            .with_header("Set-Cookie", "Clears the cookie."),
        delete("/api/sessions", "sign_out_everywhere", "Signs out on all devices, this one included.")
            .signed()
            .gives_nothing("All sessions of the user are over.")
            .with_header("Set-Cookie", "Clears the cookie."),
        put("/api/users/me/password", "change_password", "Replaces the password; the user's other sessions end.")
            .signed()
            .body::<PasswordChange>()
            .gives_nothing("The new password holds.")
            .refuses(&["bad-credentials", "weak-password"]),
    ]
}
