//! `POST /api/users`, `PUT /api/users/me/password`, `POST|DELETE /api/sessions`, `GET|DELETE /api/sessions/current`.

use flashsale::{
    app::{App, CaptchaAnswer, Credentials},
    domain::{CaptchaId, Country},
    http::{
        Answer, Body, ClientAddress, Signed, SignedWriter,
        axum::{
            Json, Router,
            extract::State,
            http::{HeaderMap, StatusCode, header},
            response::IntoResponse,
            routing::{get, post, put},
        },
        session_cookie,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/users", post(register))
        .route("/api/users/me/password", put(change_password))
        .route("/api/sessions", post(sign_in).delete(sign_out_everywhere))
        .route("/api/sessions/current", get(current).delete(sign_out))
        .with_state(app)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    phone: String,
    country: Option<Country>,
    password: String,
    captcha_id: Option<CaptchaId>,
    captcha_answer: Option<String>,
}

impl From<Account> for Credentials {
    fn from(account: Account) -> Self {
        let Account { phone, country, password, captcha_id, captcha_answer } = account;
        let captcha = captcha_id.zip(captcha_answer).map(|(captcha_id, answer)| CaptchaAnswer { captcha_id, answer });
        Self { phone, country, password, captcha }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    old_password: String,
    new_password: String,
}

async fn register(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(account): Body<Account>,
) -> Answer<(StatusCode, Json<Value>)> {
    let user = app.register(&client, account.into()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "user_id": user.user_id, "phone": user.phone }))))
}

async fn sign_in(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Body(account): Body<Account>,
) -> Answer<impl IntoResponse> {
    let signed = app.sign_in(&client, account.into()).await?;
    let cookie = session_cookie(&app, &headers, Some((&signed.token, signed.expires_at)));
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(signed)))
}

async fn current(State(app): State<App>, Signed(who): Signed, ClientAddress(client): ClientAddress) -> Answer<Json<Value>> {
    let (user, expires_at) = app.current_session(&who, &client).await?;
    Ok(Json(json!({ "user": user, "expires_at": expires_at })))
}

async fn sign_out(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
) -> Answer<impl IntoResponse> {
    app.sign_out(&who, &client, false).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session_cookie(&app, &headers, None))]))
}

async fn sign_out_everywhere(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
) -> Answer<impl IntoResponse> {
    app.sign_out(&who, &client, true).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session_cookie(&app, &headers, None))]))
}

async fn change_password(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Body(change): Body<PasswordChange>,
) -> Answer<StatusCode> {
    app.change_password(&who, &client, change.old_password, change.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}
