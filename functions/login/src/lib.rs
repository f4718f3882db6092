//! Accounts: registration, sessions and passwords.

use flashsale::{
    api::{Account, CurrentSession, PasswordChange, Registered, SignedIn},
    app::App,
    http::{
        Body, ClientAddress, HandlerResult, Signed, SignedWriter,
        axum::{
            Json,
            extract::State,
            http::{HeaderMap, StatusCode},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, delete, get, post, put},
        no_session_cookie, session_cookie,
    },
    problem::ProblemKind,
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Accounts",
        "Registration, sessions and passwords.",
        [
            post_users(),
            post_sessions(),
            get_current_session(),
            delete_current_session(),
            delete_sessions(),
            put_password(),
        ],
    )
}

/// What a captcha can be refused for.
const CAPTCHA: [ProblemKind; 3] =
    [ProblemKind::CaptchaRequired, ProblemKind::CaptchaGone, ProblemKind::CaptchaWrong];

fn post_users() -> Endpoint {
    post("/api/users", register)
        .called("register", "Registers a shopper.")
        .about("Does not sign in. A captcha of purpose `login` is needed unless captchas are off.")
        .body::<Account>()
        .gives::<Registered>(201, "The new user.")
        .refuses(&[ProblemKind::InvalidPhone, ProblemKind::WeakPassword, ProblemKind::PhoneTaken])
        .refuses(&CAPTCHA)
}

async fn register(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(account): Body<Account>,
) -> HandlerResult<(StatusCode, Json<Registered>)> {
    let user = app.register(&client, account.into()).await?;
    Ok((StatusCode::CREATED, Json(Registered { user_id: user.user_id, phone: user.phone })))
}

fn post_sessions() -> Endpoint {
    post("/api/sessions", sign_in)
        .called("sign_in", "Signs in.")
        .about("A captcha of purpose `login` is needed after 3 failures with one phone number within 15 minutes.")
        .body::<Account>()
        .gives::<SignedIn>(201, "The session's token, which the cookie holds too.")
        .with_header("Set-Cookie", "The session, for browsers.")
        .refuses(&[ProblemKind::InvalidPhone, ProblemKind::BadCredentials])
        .refuses(&CAPTCHA)
}

async fn sign_in(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Body(account): Body<Account>,
) -> HandlerResult<impl IntoResponse> {
    let signed = app.sign_in(&client, account.into()).await?;
    let cookie = session_cookie(&app, &headers, &signed.token, signed.expires_at);
    Ok((StatusCode::CREATED, cookie, Json(signed)))
}

fn get_current_session() -> Endpoint {
    get("/api/sessions/current", current)
        .called("current_session", "Whose session this is.")
        .signed_in()
        .gives::<CurrentSession>(200, "The user, and when the session is over.")
}

async fn current(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
) -> HandlerResult<Json<CurrentSession>> {
    let (user, expires_at) = app.current_session(&who, &client).await?;
    Ok(Json(CurrentSession { user, expires_at }))
}

fn delete_current_session() -> Endpoint {
    delete("/api/sessions/current", sign_out)
        .called("sign_out", "Signs out.")
        .signed_in()
        .gives_nothing("The session is over.")
        .with_header("Set-Cookie", "Clears the cookie.")
}

async fn sign_out(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
) -> HandlerResult<impl IntoResponse> {
    app.sign_out(&who, &client, false).await?;
    Ok((StatusCode::NO_CONTENT, no_session_cookie()))
}

fn delete_sessions() -> Endpoint {
    delete("/api/sessions", sign_out_everywhere)
        .called("sign_out_everywhere", "Signs out on all devices, this one included.")
        .signed_in()
        .gives_nothing("All sessions of the user are over.")
        .with_header("Set-Cookie", "Clears the cookie.")
}

async fn sign_out_everywhere(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
) -> HandlerResult<impl IntoResponse> {
    app.sign_out(&who, &client, true).await?;
    Ok((StatusCode::NO_CONTENT, no_session_cookie()))
}

fn put_password() -> Endpoint {
    put("/api/users/me/password", change_password)
        .called("change_password", "Replaces the password; the user's other sessions end.")
        .signed_in()
        .body::<PasswordChange>()
        .gives_nothing("The new password holds.")
        .refuses(&[ProblemKind::BadCredentials, ProblemKind::WeakPassword])
}

async fn change_password(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Body(change): Body<PasswordChange>,
) -> HandlerResult<StatusCode> {
    app.change_password(&who, &client, change.old_password, change.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}
