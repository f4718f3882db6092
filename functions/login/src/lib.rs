//! `POST /api/users`, `PUT /api/users/me/password`, `POST|DELETE /api/sessions`, `GET|DELETE /api/sessions/current`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, CaptchaAnswer, Credentials, UserView},
    domain::{CaptchaId, Country, Phone, Timestamp, UserId},
    http::{
        Answer, Body, ClientAddress, Signed, SignedWriter,
        axum::{
            Json, Router,
            extract::State,
            http::{HeaderMap, StatusCode},
            response::IntoResponse,
            routing::{get, post, put},
        },
        no_session_cookie, session_cookie,
    },
};
use serde::{Deserialize, Serialize};

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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(example = json!({ "phone": "+1 201-555-0124", "password": "correct horse" })))]
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
        let captcha = captcha_id
            .zip(captcha_answer)
            .map(|(captcha_id, answer)| CaptchaAnswer { captcha_id, answer });
        Self { phone, country, password, captcha }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(example = json!({ "old_password": "correct horse", "new_password": "battery staple" })))]
struct PasswordChange {
    old_password: String,
    new_password: String,
}

/// A new shopper.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Registered {
    user_id: UserId,
    phone: Phone,
}

/// Whose session it is, and when it is over.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct CurrentSession {
    user: UserView,
    expires_at: Timestamp,
}

async fn register(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(account): Body<Account>,
) -> Answer<(StatusCode, Json<Registered>)> {
    let user = app.register(&client, account.into()).await?;
    Ok((StatusCode::CREATED, Json(Registered { user_id: user.user_id, phone: user.phone })))
}

async fn sign_in(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Body(account): Body<Account>,
) -> Answer<impl IntoResponse> {
    let signed = app.sign_in(&client, account.into()).await?;
    let cookie = session_cookie(&app, &headers, &signed.token, signed.expires_at);
    Ok((StatusCode::CREATED, cookie, Json(signed)))
}

async fn current(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
) -> Answer<Json<CurrentSession>> {
    let (user, expires_at) = app.current_session(&who, &client).await?;
    Ok(Json(CurrentSession { user, expires_at }))
}

async fn sign_out(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
) -> Answer<impl IntoResponse> {
    app.sign_out(&who, &client, false).await?;
    Ok((StatusCode::NO_CONTENT, no_session_cookie()))
}

async fn sign_out_everywhere(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
) -> Answer<impl IntoResponse> {
    app.sign_out(&who, &client, true).await?;
    Ok((StatusCode::NO_CONTENT, no_session_cookie()))
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
