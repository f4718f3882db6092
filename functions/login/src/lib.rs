//! Accounts: registration, sessions and passwords.

mod phone_codes;

use flashsale::{
    api::{Account, CurrentSession, PasswordChange, Registered, Registration, SignedIn},
    app::{App, Caller},
    http::{
        Body, ClientAddress, HandlerResult,
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
            phone_codes::post_phone_codes(),
            phone_codes::put_password(),
        ],
    )
}

/// The problems that a captcha can cause.
const CAPTCHA: [ProblemKind; 3] =
    [ProblemKind::CaptchaRequired, ProblemKind::CaptchaGone, ProblemKind::CaptchaWrong];

fn post_users() -> Endpoint {
    post("/api/users", register)
        .called("register", "Registers a shopper.")
        .about("Does not sign in. Where phone numbers are verified, the code that was sent to the number is needed; elsewhere a captcha of purpose `login`, unless captchas are off.")
        .body::<Registration>()
        .gives::<Registered>(201, "The new user.")
        .refuses(&[ProblemKind::InvalidPhone, ProblemKind::WeakPassword, ProblemKind::PhoneTaken])
        .refuses(&[ProblemKind::CodeWrong, ProblemKind::CodeGone])
        .refuses(&CAPTCHA)
}

async fn register(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(registration): Body<Registration>,
) -> HandlerResult<(StatusCode, Json<Registered>)> {
    let user = app.register(&client, registration).await?;
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
        .gives::<CurrentSession>(200, "The user, and when the session ends.")
}

async fn current(State(app): State<App>, caller: Caller) -> HandlerResult<Json<CurrentSession>> {
    let (user, expires_at) = app.current_session(&caller).await?;
    Ok(Json(CurrentSession { user, expires_at }))
}

fn delete_current_session() -> Endpoint {
    delete("/api/sessions/current", sign_out)
        .called("sign_out", "Signs out.")
        .signed_in()
        .gives_nothing("The session has ended.")
        .with_header("Set-Cookie", "Clears the cookie.")
}

async fn sign_out(State(app): State<App>, caller: Caller) -> HandlerResult<impl IntoResponse> {
    app.sign_out(&caller, false).await?;
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
    caller: Caller,
) -> HandlerResult<impl IntoResponse> {
    app.sign_out(&caller, true).await?;
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
    caller: Caller,
    Body(change): Body<PasswordChange>,
) -> HandlerResult<StatusCode> {
    app.change_password(&caller, change.old_password, change.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use flashsale::{
        app::CaptchaAnswer,
        http::axum::{body::Body as RequestBody, http::Request},
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
        let site = shop.serve(endpoints());
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
        let site = shop.serve(endpoints());
        register(&site, PHONE, PASSWORD).await.expect(201);
        let wrong = sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        let unknown = sign_in(&site, "+12125550199", "wrong horse").await;
        assert_eq!(wrong.json(), unknown.refused(401, "bad-credentials").json());
    }

    #[tokio::test]
    async fn a_session_is_given_to_the_browser_and_ends_there() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(endpoints());
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
        let site = shop.serve(endpoints());
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
        let site = shop.serve(endpoints());
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
        let (site, tokens) = (shop.serve(endpoints()), shop.tokens(3).await);
        shop.app.sign_out(&shop.caller(&tokens[0]).await, false).await.unwrap();
        shop.ban("user", &shop.caller(&tokens[1]).await.session.user_id.to_string()).await;
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
        let site = shop.serve(endpoints());
        let with = |captcha: &CaptchaAnswer, answer: &str| {
            let mut body = account(PHONE, PASSWORD);
            body["captcha_id"] = json!(captcha.captcha_id);
            body["captcha_answer"] = json!(answer);
            body
        };
        register(&site, PHONE, PASSWORD).await.refused(403, "captcha-required");
        let (shopper, sale) = (shop.shoppers(1).await.remove(0), shop.sale(1).await);
        let send = async |path: &str, body: Value| site.post(path, None, body).await;
        for path in ["/api/users", "/api/sessions"] {
            let captcha = shop.login_captcha().await;
            send(path, with(&captcha, "wrong")).await.refused(422, "captcha-wrong");
            let again = with(&captcha, &captcha.answer);
            send(path, again).await.refused(410, "captcha-gone");
            let captcha = shop.purchase_captcha(&shopper, sale).await;
            let elsewhere = with(&captcha, &captcha.answer);
            send(path, elsewhere).await.refused(410, "captcha-gone");
            let captcha = shop.login_captcha().await;
            send(path, with(&captcha, &captcha.answer)).await.expect(201);
            for _ in 0..3 {
                let reply = sign_in(&site, PHONE, "wrong horse").await;
                reply.refused(401, "bad-credentials");
            }
            sign_in(&site, PHONE, PASSWORD).await.refused(403, "captcha-required");
            // The limit is ten attempts per minute with one phone.
            shop.clock.advance_ms(60_000);
        }
    }

    #[tokio::test]
    async fn only_who_knows_the_password_is_told_of_the_user_s_ban() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(endpoints());
        let user = register(&site, PHONE, PASSWORD).await.expect(201).json();
        shop.ban("user", user["user_id"].as_str().unwrap()).await;
        sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        sign_in(&site, PHONE, PASSWORD).await.refused(403, "banned");
    }

    #[tokio::test]
    async fn a_banned_phone_or_address_neither_registers_nor_signs_in() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(endpoints());
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
        let (site, seeded) = (shop.serve(endpoints()), shop.token().await);
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
        let site = shop.serve(endpoints());
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
