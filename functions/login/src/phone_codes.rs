//! Codes that prove a phone number: one endpoint sends them, one takes them for a new password.
//! Registration takes them too.

use flashsale::{
    api::{PasswordRecovery, PhoneCodeRequest, PhoneCodeSent},
    app::App,
    http::{
        Body, ClientAddress, HandlerResult,
        axum::{Json, extract::State, http::StatusCode},
        endpoints::{Endpoint, post, put},
    },
    problem::ProblemKind,
};

pub(crate) fn post_phone_codes() -> Endpoint {
    post("/api/phone-codes", send)
        .called("send_phone_code", "Sends a code to a phone.")
        .about("The answer is the same for every valid number. A new code replaces the one before. A captcha of purpose `login` is needed unless captchas are off. 404 where phone numbers are not verified.")
        .body::<PhoneCodeRequest>()
        .gives::<PhoneCodeSent>(202, "The text message was handed over.")
        .refuses(&[ProblemKind::InvalidPhone, ProblemKind::NotFound])
        .refuses(&super::CAPTCHA)
}

async fn send(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(request): Body<PhoneCodeRequest>,
) -> HandlerResult<(StatusCode, Json<PhoneCodeSent>)> {
    let sent = app.send_phone_code(&client, request.into()).await?;
    Ok((StatusCode::ACCEPTED, Json(sent)))
}

pub(crate) fn put_password() -> Endpoint {
    put("/api/users/password", recover)
        .called("recover_password", "Sets a new password with a code that was sent to the phone.")
        .about("All sessions of the user end. 404 where phone numbers are not verified and, with the right code, when nobody is registered with the number; 403, with the right code, for an administrator.")
        .body::<PasswordRecovery>()
        .gives_nothing("The new password holds.")
        .refuses(&[
            ProblemKind::InvalidPhone,
            ProblemKind::WeakPassword,
            ProblemKind::CodeWrong,
            ProblemKind::CodeGone,
            ProblemKind::Forbidden,
            ProblemKind::NotFound,
        ])
}

async fn recover(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(recovery): Body<PasswordRecovery>,
) -> HandlerResult<StatusCode> {
    app.recover_password(&client, recovery).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use flashsale::{
        domain::{Phone, Role, Subject},
        ports::StoreError,
        testing::{PASSWORD, Reply, Shop, Site},
    };
    use serde_json::{Value, json};

    use crate::endpoints;

    const PHONE: &str = "+12125550147";
    const OTHER: &str = "+12125550148";
    const NEW_PASSWORD: &str = "another horse";
    const DAY_MS: u64 = 86_400_000;

    async fn ask(site: &Site, phone: &str) -> Reply {
        site.post("/api/phone-codes", None, json!({ "phone": phone })).await
    }

    async fn register(site: &Site, phone: &str, code: &str) -> Reply {
        let body = json!({ "phone": phone, "password": PASSWORD, "phone_code": code });
        site.post("/api/users", None, body).await
    }

    async fn recover(site: &Site, phone: &str, code: &str) -> Reply {
        let body = json!({ "phone": phone, "phone_code": code, "password": NEW_PASSWORD });
        site.call("PUT", "/api/users/password", None, body).await
    }

    async fn sign_in(site: &Site, phone: &str, password: &str) -> Reply {
        site.post("/api/sessions", None, json!({ "phone": phone, "password": password })).await
    }

    /// A code that the shop sends to the phone.
    async fn code(shop: &Shop, site: &Site, phone: &str) -> String {
        ask(site, phone).await.expect(202);
        shop.sms.code_for(phone).expect("a code was sent")
    }

    /// Another code than this one.
    fn wrong(code: &str) -> String {
        let last = if code.ends_with('7') { '8' } else { '7' };
        format!("{}{last}", &code[..5])
    }

    async fn verified(shop: &Shop, phone: &str) -> bool {
        let phone = Phone::from_e164(phone).unwrap();
        let user = shop.app.ports.users.by_phone(&phone).await.unwrap().expect("it is registered");
        user.phone_verified_at.is_some()
    }

    /// Registers without proof, as before verification was turned on.
    async fn squat(shop: &Shop, phone: &str) {
        let off = shop.unverifying();
        let body = json!({ "phone": phone, "password": PASSWORD });
        shop.serve_app(&off, endpoints()).post("/api/users", None, body).await.expect(201);
        assert!(!verified(shop, phone).await);
    }

    #[tokio::test]
    async fn a_number_is_registered_by_who_has_the_phone() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        let sent = ask(&site, "+1 (212) 555-0147").await.expect(202).json();
        assert_eq!(sent, json!({ "expires_at": "2026-11-11T20:10:00.000Z" }));
        let message = shop.sms.sent().remove(0);
        assert_eq!(message.phone.as_str(), PHONE);
        assert_eq!(message.expires_at, shop.app.now().plus_ms(600_000));
        let code = message.code.as_str();

        let without =
            site.post("/api/users", None, json!({ "phone": PHONE, "password": PASSWORD }));
        assert_eq!(without.await.refused(422, "invalid").json()["field"], "phone_code");
        for text in ["", "12345", "1234567", "abcdef"] {
            let reply = register(&site, PHONE, text).await;
            assert_eq!(reply.refused(422, "invalid").json()["field"], "phone_code", "{text}");
        }
        register(&site, PHONE, &wrong(code)).await.refused(422, "code-wrong");
        // Another number's code proves nothing.
        register(&site, OTHER, code).await.refused(410, "code-gone");
        let typed = format!(" {} {} ", &code[..3], &code[3..]);
        register(&site, PHONE, &typed).await.expect(201);
        assert!(verified(&shop, PHONE).await);
        register(&site, PHONE, code).await.refused(410, "code-gone");
        sign_in(&site, PHONE, PASSWORD).await.expect(201);
    }

    #[tokio::test]
    async fn a_code_is_tried_five_times_and_used_once() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        let code = code(&shop, &site, PHONE).await;
        for _ in 0..4 {
            register(&site, PHONE, &wrong(&code)).await.refused(422, "code-wrong");
        }
        // What can't be a code takes no attempt.
        register(&site, PHONE, "12345").await.refused(422, "invalid");
        recover(&site, PHONE, &wrong(&code)).await.refused(422, "code-wrong");
        recover(&site, PHONE, &code).await.refused(410, "code-gone");
        register(&site, PHONE, &code).await.refused(410, "code-gone");
    }

    #[tokio::test]
    async fn the_fifth_attempt_may_be_the_right_one() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        let code = code(&shop, &site, PHONE).await;
        for _ in 0..4 {
            register(&site, PHONE, &wrong(&code)).await.refused(422, "code-wrong");
        }
        register(&site, PHONE, &code).await.expect(201);
    }

    #[tokio::test]
    async fn a_code_ends_with_its_time_and_with_the_next_one() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        let first = code(&shop, &site, PHONE).await;
        let mut second = code(&shop, &site, PHONE).await;
        while second == first {
            shop.clock.advance_ms(3_600_000);
            second = code(&shop, &site, PHONE).await;
        }
        register(&site, PHONE, &first).await.refused(422, "code-wrong");
        shop.clock.advance_ms(599_999);
        register(&site, PHONE, &wrong(&second)).await.refused(422, "code-wrong");
        shop.clock.advance_ms(1);
        register(&site, PHONE, &second).await.refused(410, "code-gone");
    }

    #[tokio::test]
    async fn only_who_has_the_phone_learns_that_it_is_registered() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        squat(&shop, PHONE).await;
        // Until that counts against no limit.
        shop.clock.advance_ms(60_000);
        // Every answer without the right code, for a registered and for an unknown number.
        let mut answers = Vec::new();
        for phone in [PHONE, OTHER] {
            let mut told = Vec::new();
            told.push(register(&site, phone, "123456").await);
            told.push(recover(&site, phone, "123456").await);
            told.push(ask(&site, phone).await);
            let code = shop.sms.code_for(phone).unwrap();
            told.push(register(&site, phone, &wrong(&code)).await);
            told.push(recover(&site, phone, &wrong(&code)).await);
            told.push(register(&site, phone, "12").await);
            told.push(sign_in(&site, phone, "wrong horse").await);
            told.push(ask(&site, phone).await);
            told.push(ask(&site, phone).await);
            told.push(ask(&site, phone).await);
            answers.push(told.iter().map(|reply| (reply.status, reply.json())).collect::<Vec<_>>());
        }
        let statuses: Vec<u16> = answers[0].iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!(statuses, [410, 410, 202, 422, 422, 422, 401, 202, 202, 429]);
        assert_eq!(answers[0], answers[1]);
        // With the right code.
        shop.clock.advance_ms(3_600_000);
        let own = code(&shop, &site, PHONE).await;
        register(&site, PHONE, &own).await.refused(409, "phone-taken");
        let unknown = code(&shop, &site, OTHER).await;
        recover(&site, OTHER, &unknown).await.refused(404, "not-found");
        // Both codes are still good for what their owners can do.
        recover(&site, PHONE, &own).await.expect(204);
        register(&site, OTHER, &unknown).await.expect(201);
    }

    #[tokio::test]
    async fn a_squatted_number_comes_back_to_its_owner() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        squat(&shop, PHONE).await;
        let squatter = sign_in(&site, PHONE, PASSWORD).await.expect(201).json();
        let squatter = squatter["token"].as_str().unwrap();
        let current = async || site.get("/api/sessions/current", Some(squatter)).await;
        current().await.expect(200);
        // Failures of the squatter would ask the owner for captchas.
        for _ in 0..3 {
            sign_in(&site, PHONE, "wrong horse").await.refused(401, "bad-credentials");
        }
        let code = code(&shop, &site, PHONE).await;
        let weak = json!({ "phone": PHONE, "phone_code": code, "password": "weak" });
        let weak = site.call("PUT", "/api/users/password", None, weak).await;
        assert_eq!(weak.refused(422, "weak-password").json()["field"], "password");
        recover(&site, PHONE, &code).await.expect(204);
        current().await.refused(401, "unauthenticated");
        sign_in(&site, PHONE, PASSWORD).await.refused(401, "bad-credentials");
        sign_in(&site, PHONE, NEW_PASSWORD).await.expect(201);
        assert!(verified(&shop, PHONE).await);
        recover(&site, PHONE, &code).await.refused(410, "code-gone");
    }

    #[tokio::test]
    async fn an_administrator_s_password_needs_more_than_a_text_message() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        let phone = Phone::from_e164(PHONE).unwrap();
        shop.app.add_user(phone, PASSWORD.to_owned(), Role::Admin).await.unwrap();
        let code = code(&shop, &site, PHONE).await;
        recover(&site, PHONE, &wrong(&code)).await.refused(422, "code-wrong");
        recover(&site, PHONE, &code).await.refused(403, "forbidden");
        sign_in(&site, PHONE, PASSWORD).await.expect(201);
    }

    #[tokio::test]
    async fn a_code_is_sent_for_a_captcha_and_used_without_one() {
        let shop = Shop::open(&[("PHONE_VERIFICATION", "log")]).await;
        let site = shop.serve(endpoints());
        ask(&site, PHONE).await.refused(403, "captcha-required");
        let with = async |answer: &str| {
            let captcha = shop.login_captcha().await;
            let answer = if answer.is_empty() { captcha.answer } else { answer.to_owned() };
            let body = json!({ "phone": PHONE, "captcha_id": captcha.captcha_id, "captcha_answer": answer });
            site.post("/api/phone-codes", None, body).await
        };
        // Wrong answers do not use the number's limit up.
        for _ in 0..5 {
            with("wrong").await.refused(422, "captcha-wrong");
        }
        assert!(shop.sms.sent().is_empty());
        with("").await.expect(202);
        let code = shop.sms.code_for(PHONE).unwrap();
        register(&site, PHONE, &code).await.expect(201);
        shop.clock.advance_ms(60_000);
        with("").await.expect(202);
        recover(&site, PHONE, &shop.sms.code_for(PHONE).unwrap()).await.expect(204);
    }

    /// A shop where one limit on messages is lower than all others.
    async fn limited(limit: &str, burst: &str, window_ms: &str) -> Shop {
        let mut settings = vec![
            ("CAPTCHA".to_owned(), "off"),
            ("PHONE_VERIFICATION".to_owned(), "log"),
            ("LIMITS__LOGIN_PHONE__LIMIT".to_owned(), "1000"),
            ("LIMITS__LOGIN_PHONE__BURST".to_owned(), "1000"),
        ];
        for name in ["PHONE_CODE", "PHONE_CODE_HOUR", "PHONE_CODE_DAY", "PHONE_CODE_RANGE"] {
            let lower = name == limit;
            settings.push((format!("LIMITS__{name}__LIMIT"), if lower { burst } else { "1000" }));
            settings.push((format!("LIMITS__{name}__BURST"), if lower { burst } else { "1000" }));
            let window_ms = if lower { window_ms } else { "1000" };
            settings.push((format!("LIMITS__{name}__WINDOW_MS"), window_ms));
        }
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        Shop::open(&settings).await
    }

    #[tokio::test]
    async fn an_address_asks_for_so_many_codes() {
        let shop = limited("PHONE_CODE", "2", "3600000").await;
        let site = shop.serve(endpoints());
        ask(&site, PHONE).await.expect(202);
        ask(&site, OTHER).await.expect(202);
        ask(&site, "+12015550123").await.limited("phone-code", "q=2;w=3600");
        ask(&site.at("198.51.100.1"), "+12015550123").await.expect(202);
        assert_eq!(shop.sms.sent().len(), 3, "a refused request sends nothing");
        shop.clock.advance_ms(1_800_000);
        ask(&site, PHONE).await.expect(202);
    }

    #[tokio::test]
    async fn a_number_gets_so_many_messages_wherever_they_are_asked_for() {
        for (limit, name, window) in [
            ("PHONE_CODE_HOUR", "phone-code-hour", 3_600_u64),
            ("PHONE_CODE_DAY", "phone-code-day", 86_400),
        ] {
            let shop = limited(limit, "2", &(window * 1_000).to_string()).await;
            let site = shop.serve(endpoints());
            ask(&site, PHONE).await.expect(202);
            ask(&site.at("198.51.100.1"), PHONE).await.expect(202);
            let refused = ask(&site.at("198.51.100.2"), PHONE).await;
            refused.limited(name, &format!("q=2;w={window}"));
            ask(&site, OTHER).await.expect(202);
            assert_eq!(shop.sms.sent().len(), 3);
            shop.clock.advance_ms(window * 500);
            ask(&site, PHONE).await.expect(202);
        }
    }

    #[tokio::test]
    async fn a_range_of_numbers_gets_so_many_messages() {
        let shop = limited("PHONE_CODE_RANGE", "2", "3600000").await;
        let site = shop.serve(endpoints());
        ask(&site.at("198.51.100.1"), "+12125550101").await.expect(202);
        ask(&site.at("198.51.100.2"), "+12125550102").await.expect(202);
        let refused = ask(&site.at("198.51.100.3"), "+12125550103").await;
        refused.limited("phone-code-range", "q=2;w=3600");
        ask(&site, "+12015550103").await.expect(202);
        assert_eq!(shop.sms.sent().len(), 3);
    }

    #[tokio::test]
    async fn a_day_has_a_budget_and_what_was_not_sent_costs_nothing() {
        let settings = [
            ("CAPTCHA", "off"),
            ("PHONE_VERIFICATION", "log"),
            ("PHONE_CODES__MESSAGES_PER_DAY_MAX", "2"),
        ];
        let shop = Shop::open(&settings).await;
        let site = shop.serve(endpoints());
        let gateway = || "SMS gateway";
        let unavailable = StoreError::Unavailable { store: gateway(), cause: "down".to_owned() };
        let unknown = StoreError::Unknown { store: gateway(), cause: "slow".to_owned() };
        shop.sms.fail(unavailable);
        let refused = ask(&site, PHONE).await.refused(503, "unavailable");
        assert_eq!(refused.header("retry-after"), "1");
        // A message that may have been sent counts.
        shop.sms.fail(unknown);
        ask(&site, PHONE).await.refused(503, "unavailable");
        // Another process of the same shop shares the budget.
        let another = shop.another();
        ask(&shop.serve_app(&another, endpoints()), OTHER).await.expect(202);
        let refused = ask(&site, "+12015550123").await.refused(429, "rate-limited");
        // The shop's clock shows 20:00 UTC.
        assert_eq!(refused.header("retry-after"), "14400");
        assert_eq!(refused.header("ratelimit"), "\"phone-code-budget\";r=0;t=14400");
        assert_eq!(shop.sms.sent().len(), 1);
        // The code that a number has stays valid when no further one can be sent.
        let code = shop.sms.code_for(OTHER).unwrap();
        ask(&site, OTHER).await.refused(429, "rate-limited");
        register(&site, OTHER, &code).await.expect(201);
        shop.clock.advance_ms(DAY_MS);
        ask(&site, "+12015550123").await.expect(202);
    }

    #[tokio::test]
    async fn a_banned_phone_or_address_gets_no_message() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        shop.ban("phone", PHONE).await;
        shop.ban("address", "198.51.100.1").await;
        ask(&site, PHONE).await.refused(403, "banned");
        ask(&site.at("198.51.100.1"), OTHER).await.refused(403, "banned");
        assert!(shop.sms.sent().is_empty());
    }

    #[tokio::test]
    async fn a_network_that_only_the_ledger_knows_to_be_banned_gets_no_message() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        shop.ban("network", "198.51.100.0/24").await;
        let network = Subject::parse("network", "198.51.100.0/24").unwrap();
        assert!(
            shop.app.ports.blacklist.lift(&network).await.unwrap(),
            "the fast store forgets it"
        );
        ask(&site.at("198.51.100.1"), OTHER).await.refused(403, "banned");
        assert!(shop.sms.sent().is_empty());
        ask(&site.at("198.51.101.1"), OTHER).await.expect(202);
    }

    #[tokio::test]
    async fn where_numbers_are_not_verified_there_are_no_codes() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(endpoints());
        ask(&site, PHONE).await.refused(404, "not-found");
        recover(&site, PHONE, "123456").await.refused(404, "not-found");
        // A code that a page sends along is not looked at.
        register(&site, PHONE, "123456").await.expect(201);
        assert!(!verified(&shop, PHONE).await);
        assert!(shop.sms.sent().is_empty());
    }

    #[tokio::test]
    async fn bodies_are_read_strictly() {
        let shop = Shop::verifying().await;
        let site = shop.serve(endpoints());
        for (body, field) in [
            (json!({}), "phone"),
            (json!({ "phone": PHONE, "country": "DE" }), "country"),
            (json!({ "phone": PHONE, "user_id": "1" }), "user_id"),
        ] {
            let reply = site.post("/api/phone-codes", None, body).await.refused(422, "invalid");
            assert_eq!(reply.json()["field"], field);
        }
        ask(&site, "+44 20 7946 0958").await.refused(422, "invalid-phone");
        for missing in ["phone_code", "password"] {
            let mut body =
                json!({ "phone": PHONE, "phone_code": "123456", "password": NEW_PASSWORD });
            body.as_object_mut().unwrap().remove(missing);
            let reply = site.call("PUT", "/api/users/password", None, body).await;
            assert_eq!(reply.refused(422, "invalid").json()["field"], missing);
        }
        let signing_in = json!({ "phone": PHONE, "password": PASSWORD, "phone_code": "123456" });
        let reply = site.post("/api/sessions", None, signing_in).await.refused(422, "invalid");
        assert_eq!(reply.json()["field"], "phone_code");
        assert_eq!(shop.sms.sent(), []);
        let _: Value = reply.json();
    }
}
