//! The port `CaptchaProvider` by siteverify, against a provider of our own.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use flashsale::{
    adapters::siteverify::{Siteverify, SiteverifySettings},
    app::{App, CaptchaAnswer, Credentials},
    contract_tests,
    domain::{CaptchaId, CaptchaKind},
    ports::{CaptchaProvider, StoreError},
    problem::Problem,
    testing::{
        Behaviour, FakeProvider, PASSWORD, PROVIDER_HOSTNAME, PROVIDER_SECRET, Shop, captcha_id,
        client_at,
    },
};
use serde_json::json;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const TIMEOUT: Duration = Duration::from_millis(300);

fn settings(provider: &FakeProvider) -> SiteverifySettings {
    SiteverifySettings {
        url: format!("{}/siteverify", provider.base),
        secret: PROVIDER_SECRET.into(),
        hostnames: vec![PROVIDER_HOSTNAME.to_owned()],
        timeout: TIMEOUT,
        calls_max: 4,
    }
}

fn siteverify(provider: &FakeProvider) -> Siteverify {
    Siteverify::new(settings(provider)).unwrap()
}

contract_tests! { captcha_provider [] async {
    let provider = FakeProvider::start();
    let adapter: Arc<dyn CaptchaProvider> = Arc::new(Siteverify::new(SiteverifySettings {
        timeout: Duration::from_secs(20),
        ..settings(&provider)
    }).unwrap());
    (provider, adapter)
} }

#[tokio::test]
async fn the_provider_gets_the_token_the_address_and_the_secret() {
    let provider = FakeProvider::start();
    let token = "a token & more = \u{e9}";
    siteverify(&provider).accepts(token, "login", captcha_id(), ADDRESS).await.unwrap();
    let sent = [("secret", PROVIDER_SECRET), ("response", token), ("remoteip", "192.0.2.7")];
    let sent = sent.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(provider.forms(), [sent.to_vec()]);
}

#[tokio::test]
async fn a_provider_that_does_not_answer_as_it_should_is_an_error() {
    let provider = FakeProvider::start();
    let adapter = siteverify(&provider);
    let ask = async || adapter.accepts("x", "login", captcha_id(), ADDRESS).await;
    for status in [204, 302, 403, 429, 500, 503] {
        provider.behave(Behaviour::Status(status));
        assert!(matches!(ask().await, Err(StoreError::Unavailable { .. })), "{status}");
    }
    provider.behave(Behaviour::Status(200));
    let told = ask().await.unwrap_err();
    assert!(matches!(told, StoreError::Unavailable { .. }), "{told}");
    assert!(!told.to_string().contains("Sorry"), "{told}");
    for unjudged in [
        json!({}),
        json!([]),
        json!({ "success": "yes" }),
        json!({ "success": false, "error-codes": ["internal-error"] }),
        json!({ "success": true, "padding": "x".repeat(100_000) }),
    ] {
        provider.behave(Behaviour::Always(unjudged));
        let told = ask().await.unwrap_err();
        assert!(!matches!(told, StoreError::Corrupt { .. }), "{told}");
    }
    provider.behave(Behaviour::Slow(5_000));
    let begun = Instant::now();
    assert!(matches!(ask().await, Err(StoreError::Unknown { .. })));
    assert!(begun.elapsed() < Duration::from_secs(4));

    let nobody =
        SiteverifySettings { url: "http://127.0.0.1:1/".to_owned(), ..settings(&provider) };
    let nobody = Siteverify::new(nobody).unwrap();
    let told = nobody.accepts("x", "login", captcha_id(), ADDRESS).await.unwrap_err();
    assert!(!matches!(told, StoreError::Corrupt { .. }), "{told}");
    let secret = SiteverifySettings { secret: "other".into(), ..settings(&provider) };
    provider.behave(Behaviour::Right);
    let told = Siteverify::new(secret).unwrap();
    let told = told.accepts("x", "login", captcha_id(), ADDRESS).await.unwrap_err();
    assert!(matches!(told, StoreError::Corrupt { .. }), "{told}");
}

#[tokio::test]
async fn what_the_provider_tells_of_a_token_must_be_right() {
    let provider = FakeProvider::start();
    let adapter = siteverify(&provider);
    let id = captcha_id();
    for (answer, expected) in [
        (json!({ "success": true, "hostname": PROVIDER_HOSTNAME }), true),
        (json!({ "success": true, "hostname": PROVIDER_HOSTNAME, "action": "" }), true),
        (
            json!({ "success": true, "hostname": PROVIDER_HOSTNAME, "action": "login", "cdata": id }),
            true,
        ),
        (json!({ "success": false, "hostname": PROVIDER_HOSTNAME }), false),
        (json!({ "success": true }), false),
        (json!({ "success": true, "hostname": "evil.example" }), false),
        (json!({ "success": true, "hostname": PROVIDER_HOSTNAME, "action": "purchase" }), false),
        (json!({ "success": true, "hostname": PROVIDER_HOSTNAME, "cdata": captcha_id() }), false),
    ] {
        provider.behave(Behaviour::Always(answer.clone()));
        let accepted = adapter.accepts("x", "login", id, ADDRESS).await.unwrap();
        assert_eq!(accepted, expected, "{answer}");
    }
    let anywhere = SiteverifySettings { hostnames: Vec::new(), ..settings(&provider) };
    let anywhere = Siteverify::new(anywhere).unwrap();
    provider.behave(Behaviour::Always(json!({ "success": true, "hostname": "other.example" })));
    assert!(anywhere.accepts("x", "login", id, ADDRESS).await.unwrap());
}

async fn shop(provider: &FakeProvider, when_down: &str) -> Shop {
    let settings = [
        ("CAPTCHA", "provider"),
        ("CAPTCHAS__PROVIDER__SITE_KEY", "site"),
        ("CAPTCHAS__PROVIDER__SECRET", "unused: the test makes the adapter"),
        ("CAPTCHAS__PROVIDER__WHEN_DOWN", when_down),
    ];
    let adapter = Arc::new(siteverify(provider));
    Shop::open_with(&settings, |ports| ports.captcha_provider = Some(adapter)).await
}

async fn register(
    app: &App,
    number: u32,
    captcha_id: CaptchaId,
    token: &str,
) -> Result<(), Problem> {
    let given = Credentials {
        phone: format!("+1201555{number:04}"),
        country: None,
        password: PASSWORD.to_owned(),
        captcha: Some(CaptchaAnswer { captcha_id, answer: token.to_owned() }),
    };
    app.register(&client_at("192.0.2.9"), given).await.map(drop)
}

async fn draw(app: &App) -> CaptchaId {
    let drawn = app.draw_login_captcha(&client_at("192.0.2.9")).await.unwrap();
    assert_eq!(drawn.kind, CaptchaKind::Provider);
    drawn.captcha_id
}

fn token(captcha_id: CaptchaId) -> String {
    FakeProvider::token("login", &captcha_id.to_string())
}

#[tokio::test]
async fn a_token_and_a_captcha_are_each_good_once() {
    let provider = FakeProvider::start();
    let shop = shop(&provider, "refuse").await;
    let (app, other) = (&shop.app, shop.another());
    let id = draw(app).await;
    register(&other, 111, id, &token(id)).await.unwrap();
    let again = register(app, 112, id, &token(id)).await;
    assert!(matches!(again, Err(Problem::CaptchaGone)), "{again:?}");
    let id = draw(app).await;
    let wrong = register(app, 113, id, "wrong").await;
    assert!(matches!(wrong, Err(Problem::CaptchaWrong)), "{wrong:?}");
    let gone = register(app, 113, id, &token(id)).await;
    assert!(matches!(gone, Err(Problem::CaptchaGone)), "{gone:?}");

    // Also with a provider that takes a token twice and does not tell what it was made for.
    let yes = json!({ "success": true, "hostname": PROVIDER_HOSTNAME });
    provider.behave(Behaviour::Always(yes));
    register(app, 114, draw(app).await, "one token").await.unwrap();
    for app in [app, &other] {
        let again = register(app, 115, draw(app).await, "one token").await;
        assert!(matches!(again, Err(Problem::CaptchaWrong)), "{again:?}");
    }
    register(app, 116, draw(app).await, "another token").await.unwrap();
}

#[tokio::test]
async fn while_the_provider_is_down_the_setting_decides() {
    let provider = FakeProvider::start();
    let shop = shop(&provider, "refuse").await;
    let id = draw(&shop.app).await;
    provider.behave(Behaviour::Status(503));
    let refused = register(&shop.app, 121, id, &token(id)).await;
    assert!(matches!(refused, Err(Problem::Store(_))), "{refused:?}");
    provider.behave(Behaviour::Right);
    register(&shop.app, 121, id, &token(id)).await.expect("the captcha was not used up");

    let admitting = self::shop(&provider, "admit").await;
    provider.behave(Behaviour::Slow(5_000));
    let id = draw(&admitting.app).await;
    register(&admitting.app, 122, id, "").await.expect("nobody can judge it");
    let again = register(&admitting.app, 123, id, "").await;
    assert!(matches!(again, Err(Problem::CaptchaGone)), "{again:?}");
    // A wrong secret is not a provider that is down.
    let wrong = json!({ "success": false, "error-codes": ["invalid-input-secret"] });
    provider.behave(Behaviour::Always(wrong));
    let id = draw(&admitting.app).await;
    let refused = register(&admitting.app, 124, id, &token(id)).await;
    assert!(refused.is_err(), "{refused:?}");
    provider.behave(Behaviour::Right);
    let refused = register(&admitting.app, 125, draw(&admitting.app).await, "").await;
    assert!(matches!(refused, Err(Problem::CaptchaWrong)), "{refused:?}");
}

#[tokio::test]
async fn a_captcha_is_good_for_its_purpose_only_whatever_the_provider_says() {
    let provider = FakeProvider::start();
    let shop = shop(&provider, "refuse").await;
    // It does not tell what a token was made for.
    let yes = json!({ "success": true, "hostname": PROVIDER_HOSTNAME });
    provider.behave(Behaviour::Always(yes));
    let who = shop.shoppers(2).await;
    let (sale, elsewhere) = (shop.sale(1).await, shop.sale(1).await);
    let asked = provider.forms().len();
    let answer = |captcha_id| CaptchaAnswer { captcha_id, answer: "a token".to_owned() };
    let own = shop.purchase_captcha(&who[0], sale).await.captcha_id;
    for captcha_id in [
        draw(&shop.app).await,
        shop.purchase_captcha(&who[0], elsewhere).await.captcha_id,
        shop.purchase_captcha(&who[1], sale).await.captcha_id,
    ] {
        let ticket = shop.app.issue_ticket(&who[0], sale, Some(answer(captcha_id))).await;
        assert!(matches!(ticket, Err(Problem::CaptchaGone)), "{:?}", ticket.err());
    }
    let registered = register(&shop.app, 131, own, "a token").await;
    assert!(matches!(registered, Err(Problem::CaptchaGone)), "{registered:?}");
    assert_eq!(provider.forms().len(), asked, "no token is spent for them");
    shop.app.issue_ticket(&who[0], sale, Some(answer(own))).await.unwrap();
}
