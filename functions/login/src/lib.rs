//! `POST /api/users`, `PUT /api/users/me/password`, `POST|DELETE /api/sessions`, `GET|DELETE /api/sessions/current`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, Caller, CaptchaAnswer, Credentials, UserView},
    domain::{CaptchaId, Country, Phone, Timestamp, UserId},
    http::{
        Answer, Body, ClientAddress,
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

async fn current(State(app): State<App>, caller: Caller) -> Answer<Json<CurrentSession>> {
    let (user, expires_at) = app.current_session(&caller).await?;
    Ok(Json(CurrentSession { user, expires_at }))
}

async fn sign_out(State(app): State<App>, caller: Caller) -> Answer<impl IntoResponse> {
    app.sign_out(&caller, false).await?;
    Ok((StatusCode::NO_CONTENT, no_session_cookie()))
}

async fn sign_out_everywhere(State(app): State<App>, caller: Caller) -> Answer<impl IntoResponse> {
    app.sign_out(&caller, true).await?;
    Ok((StatusCode::NO_CONTENT, no_session_cookie()))
}

async fn change_password(
    State(app): State<App>,
    caller: Caller,
    Body(change): Body<PasswordChange>,
) -> Answer<StatusCode> {
    app.change_password(&caller, change.old_password, change.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use flashsale::{
        http::axum::{body::Body as RequestBody, http::Request},
        ports::Purpose,
        testing::{PASSWORD, Reply, Shop, Site},
    };
    use serde_json::{Value, json};

    use super::*;

    const PHONE: &str = "+12125550147";
    const NEW_PASSWORD: &str = "another horse";

    fn account(phone: &str, password: &str) -> Value {
        json!({ "phone": phone, "country": "US", "password": password })
    }

    async fn register(site: &Site, phone: &str, password: &str) -> Reply {
        site.post("/api/users", None, account(phone, password)).await
    }

    async fn sign_in(site: &Site, phone: &str, password: &str) -> Reply {
        site.post("/api/sessions", None, account(phone, password)).await
    }

    async fn token(site: &Site, password: &str) -> String {
        let signed_in = sign_in(site, PHONE, password).await.expect(201);
        signed_in.json()["token"].as_str().unwrap().to_owned()
    }

    async fn change(site: &Site, token: &str, old: &str, new: &str) -> Reply {
        let body = json!({ "old_password": old, "new_password": new });
        site.call("PUT", "/api/users/me/password", Some(token), body).await
    }

    async fn current(site: &Site, token: &str) -> Reply {
        site.get("/api/sessions/current", Some(token)).await
    }

    #[tokio::test]
    async fn a_phone_and_a_password_are_checked_before_anybody_is_registered() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        let registered = register(&site, "(212) 555-0147", PASSWORD).await.expect(201).json();
        assert_eq!(registered["phone"], PHONE);
        assert!(registered["user_id"].is_string());
        let chinese = json!({ "phone": "138 0013 8000", "country": "CN", "password": PASSWORD });
        let chinese = site.post("/api/users", None, chinese).await.expect(201).json();
        assert_eq!(chinese["phone"], "+8613800138000");

        register(&site, "+1 212-555-0147", PASSWORD).await.refused(409, "phone-taken");
        for phone in ["555", "+44 20 7946 0958"] {
            let reply = register(&site, phone, PASSWORD).await.refused(422, "invalid-phone");
            assert_eq!(reply.json()["field"], "phone");
            sign_in(&site, phone, PASSWORD).await.refused(422, "invalid-phone");
        }
        for password in ["short", "12345678", "2125550148"] {
            let reply = register(&site, "212-555-0148", password).await;
            assert_eq!(reply.refused(422, "weak-password").json()["field"], "password");
        }
        for path in ["/api/users", "/api/sessions"] {
            for (body, field) in [
                (json!({ "phone": PHONE }), "password"),
                (json!({ "phone": PHONE, "password": PASSWORD, "role": "admin" }), "role"),
                (json!({ "phone": PHONE, "password": PASSWORD, "country": "DE" }), "country"),
            ] {
                let reply = site.post(path, None, body).await.refused(422, "invalid");
                assert_eq!(reply.json()["field"], field);
            }
        }
    }

    #[tokio::test]
    async fn the_answer_does_not_tell_whether_the_phone_is_known() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        register(&site, PHONE, PASSWORD).await.expect(201);
        let wrong = sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        let unknown = sign_in(&site, "+12125550199", "wrong horse").await;
        assert_eq!(wrong.json(), unknown.refused(401, "bad-credentials").json());
    }

    #[tokio::test]
    async fn a_session_is_given_to_the_browser_and_ends_there() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        register(&site, PHONE, PASSWORD).await.expect(201);
        let signed_in = sign_in(&site, PHONE, PASSWORD).await.expect(201);
        assert_eq!(signed_in.json()["user"]["role"], "shopper");
        let body = account(PHONE, PASSWORD).to_string();
        let here = Request::post("/api/sessions").header("host", "127.0.0.1:8080");
        let here = site.send(here.body(RequestBody::from(body)).unwrap()).await.expect(201);
        for (cookie, name, secure) in [
            (signed_in.header("set-cookie"), "__Host-session=", true),
            (here.header("set-cookie"), "session=", false),
        ] {
            for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(cookie.contains(part), "{cookie}");
            }
            assert!(cookie.starts_with(name) && cookie.contains("Secure") == secure, "{cookie}");
        }
        let token = signed_in.json()["token"].as_str().unwrap().to_owned();
        let reply = current(&site, &token).await.expect(200).json();
        assert_eq!(reply["user"]["phone"], PHONE);
        let ended = site.call("DELETE", "/api/sessions/current", Some(&token), Value::Null).await;
        assert!(ended.expect(204).header("set-cookie").contains("Max-Age=0"));
        current(&site, &token).await.refused(401, "unauthenticated");
    }

    #[tokio::test]
    async fn signing_out_everywhere_ends_all_sessions() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        register(&site, PHONE, PASSWORD).await.expect(201);
        let tokens = [token(&site, PASSWORD).await, token(&site, PASSWORD).await];
        site.call("DELETE", "/api/sessions", Some(&tokens[0]), Value::Null).await.expect(204);
        for token in &tokens {
            current(&site, token).await.refused(401, "unauthenticated");
        }
    }

    #[tokio::test]
    async fn a_password_is_changed_by_who_knows_it_and_other_sessions_end() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        register(&site, PHONE, PASSWORD).await.expect(201);
        let (own, other) = (token(&site, PASSWORD).await, token(&site, PASSWORD).await);
        change(&site, &own, "wrong", NEW_PASSWORD).await.refused(401, "bad-credentials");
        let weak = change(&site, &own, PASSWORD, "weak").await.refused(422, "weak-password");
        assert_eq!(weak.json()["field"], "new_password");
        let body = json!({ "old_password": PASSWORD });
        let reply = site.call("PUT", "/api/users/me/password", Some(&own), body).await;
        assert_eq!(reply.refused(422, "invalid").json()["field"], "new_password");
        current(&site, &other).await.expect(200);
        change(&site, &own, PASSWORD, NEW_PASSWORD).await.expect(204);
        current(&site, &own).await.expect(200);
        current(&site, &other).await.refused(401, "unauthenticated");
        sign_in(&site, PHONE, PASSWORD).await.refused(401, "bad-credentials");
        token(&site, NEW_PASSWORD).await;
    }

    #[tokio::test]
    async fn what_is_the_user_s_needs_a_live_session() {
        let shop = Shop::without_captchas().await;
        let (site, tokens) = (shop.serve(router), shop.tokens(3).await);
        shop.app.sign_out(&shop.caller(&tokens[0]), false).await.unwrap();
        shop.ban("user", &shop.caller(&tokens[1]).session.user_id.to_string()).await;
        let change = json!({ "old_password": PASSWORD, "new_password": NEW_PASSWORD });
        let routes = [
            ("GET", "/api/sessions/current", Value::Null),
            ("DELETE", "/api/sessions/current", Value::Null),
            ("DELETE", "/api/sessions", Value::Null),
            ("PUT", "/api/users/me/password", change),
        ];
        for (method, path, body) in routes {
            for token in [None, Some("garbage"), Some(tokens[0].as_str())] {
                let reply = site.call(method, path, token, body.clone()).await;
                reply.refused(401, "unauthenticated");
            }
            let reply = site.call(method, path, Some(&tokens[1]), body.clone()).await;
            reply.refused(403, "banned");
            if method != "GET" {
                let cookie = Request::builder().method(method).uri(path);
                let cookie = cookie.header("cookie", format!("__Host-session={}", tokens[2]));
                let body = RequestBody::from(body.to_string());
                site.send(cookie.body(body).unwrap()).await.refused(403, "forbidden");
            }
        }
        shop.clock.advance_ms(43_199_000);
        current(&site, &tokens[2]).await.expect(200);
        shop.clock.advance_ms(1_000);
        current(&site, &tokens[2]).await.refused(401, "unauthenticated");
    }

    #[tokio::test]
    async fn a_captcha_is_asked_for_at_registration_and_after_failures() {
        let shop = Shop::open(&[]).await;
        let site = shop.serve(router);
        let with = |captcha: &CaptchaAnswer, answer: &str| {
            let mut body = account(PHONE, PASSWORD);
            body["captcha_id"] = json!(captcha.captcha_id);
            body["captcha_answer"] = json!(answer);
            body
        };
        register(&site, PHONE, PASSWORD).await.refused(403, "captcha-required");
        let send = async |path: &str, body: Value| site.post(path, None, body).await;
        for path in ["/api/users", "/api/sessions"] {
            let captcha = shop.captcha(Purpose::Login).await;
            send(path, with(&captcha, "wrong")).await.refused(422, "captcha-wrong");
            let again = with(&captcha, &captcha.answer);
            send(path, again).await.refused(410, "captcha-gone");
            let captcha = shop.captcha(Purpose::Purchase).await;
            let elsewhere = with(&captcha, &captcha.answer);
            send(path, elsewhere).await.refused(410, "captcha-gone");
            let captcha = shop.captcha(Purpose::Login).await;
            send(path, with(&captcha, &captcha.answer)).await.expect(201);
            for _ in 0..3 {
                let reply = sign_in(&site, PHONE, "wrong horse").await;
                reply.refused(401, "bad-credentials");
            }
            sign_in(&site, PHONE, PASSWORD).await.refused(403, "captcha-required");
            // Ten tries in a minute with one phone.
            shop.clock.advance_ms(60_000);
        }
    }

    #[tokio::test]
    async fn only_who_knows_the_password_is_told_of_the_user_s_ban() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        let user = register(&site, PHONE, PASSWORD).await.expect(201).json();
        shop.ban("user", user["user_id"].as_str().unwrap()).await;
        sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        sign_in(&site, PHONE, PASSWORD).await.refused(403, "banned");
    }

    #[tokio::test]
    async fn a_banned_phone_or_address_neither_registers_nor_signs_in() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(router);
        shop.ban("phone", PHONE).await;
        shop.ban("address", "198.51.100.1").await;
        for reply in [
            register(&site, PHONE, PASSWORD).await,
            sign_in(&site, PHONE, PASSWORD).await,
            register(&site.at("198.51.100.1"), "+12125550148", PASSWORD).await,
            sign_in(&site.at("198.51.100.1"), "+12125550148", PASSWORD).await,
        ] {
            reply.refused(403, "banned");
        }
    }

    #[tokio::test]
    async fn limits_say_when_to_come_back() {
        let mut settings = vec![("CAPTCHA".to_owned(), "off")];
        for name in ["REGISTER", "LOGIN", "ACCOUNT"] {
            settings.push((format!("LIMITS__{name}__LIMIT"), "1"));
            settings.push((format!("LIMITS__{name}__BURST"), "1"));
        }
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let shop = Shop::open(&settings).await;
        let (site, seeded) = (shop.serve(router), shop.token().await);
        register(&site, PHONE, PASSWORD).await.expect(201);
        register(&site, "+12125550148", PASSWORD).await.limited("register", "q=1;w=1");
        register(&site.at("198.51.100.1"), "+12125550148", PASSWORD).await.expect(201);
        sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        sign_in(&site, PHONE, PASSWORD).await.limited("login", "q=1;w=1");
        current(&site, &seeded).await.expect(200);
        current(&site, &seeded).await.limited("account", "q=1;w=60");
        change(&site, &seeded, PASSWORD, NEW_PASSWORD).await.limited("account", "q=1;w=60");
    }

    #[tokio::test]
    async fn one_phone_is_tried_from_one_address_so_often() {
        let settings = [
            ("CAPTCHA", "off"),
            ("LIMITS__LOGIN_PHONE__LIMIT", "2"),
            ("LIMITS__LOGIN_PHONE__BURST", "2"),
        ];
        let shop = Shop::open(&settings).await;
        let site = shop.serve(router);
        for _ in 0..2 {
            sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        }
        sign_in(&site, PHONE, PASSWORD).await.limited("login-phone", "q=2;w=60");
        register(&site, PHONE, PASSWORD).await.limited("login-phone", "q=2;w=60");
        sign_in(&site, "+12125550148", "wrong horse").await.refused(401, "bad-credentials");
        let elsewhere = sign_in(&site.at("198.51.100.1"), PHONE, "wrong horse").await;
        elsewhere.refused(401, "bad-credentials");
    }
}
