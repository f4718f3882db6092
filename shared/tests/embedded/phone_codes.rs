//! What requests for phone codes must not do: ask for the number's user before the number is
//! proved, or write codes and numbers to the log.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use flashsale::{
    api::PasswordRecovery,
    app::{CodeRequest, Credentials, Registering},
    domain::{KeptCode, Phone, Timestamp, User, UserChange, UserCreated, UserId},
    ports::{Stored, Users},
    problem::Problem,
    testing::{PASSWORD, Shop},
};

use crate::flood::Lines;

const PHONE: &str = "+12015550123";
const OTHER: &str = "+12015550124";
const VERIFYING: [(&str, &str); 2] = [("CAPTCHA", "off"), ("PHONE_VERIFICATION", "log")];

/// Counts every call and passes it on.
struct Counting {
    inner: Arc<dyn Users>,
    calls: Arc<AtomicU32>,
}

impl Counting {
    fn count(&self) -> &dyn Users {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &*self.inner
    }
}

#[async_trait]
impl Users for Counting {
    async fn create(&self, user: &User) -> Stored<UserCreated> {
        self.count().create(user).await
    }

    async fn create_many(&self, users: &[User]) -> Stored<Vec<UserId>> {
        self.count().create_many(users).await
    }

    async fn by_phone(&self, phone: &Phone) -> Stored<Option<User>> {
        self.count().by_phone(phone).await
    }

    async fn by_id(&self, user_id: UserId) -> Stored<Option<User>> {
        self.count().by_id(user_id).await
    }

    async fn change(&self, user_id: UserId, change: &UserChange, now: Timestamp) -> Stored<bool> {
        self.count().change(user_id, change, now).await
    }
}

async fn ask(shop: &Shop, phone: &str) -> String {
    let request = CodeRequest { phone: phone.to_owned(), country: None, captcha: None };
    shop.app.send_phone_code(&shop.client, request).await.unwrap();
    shop.sms.code_for(phone).unwrap()
}

async fn register(shop: &Shop, phone: &str, code: &str) -> Result<(), Problem> {
    let credentials = Credentials {
        phone: phone.to_owned(),
        country: None,
        password: PASSWORD.to_owned(),
        captcha: None,
    };
    let given = Registering { credentials, phone_code: Some(code.to_owned()) };
    shop.app.register(&shop.client, given).await.map(drop)
}

async fn recover(shop: &Shop, phone: &str, code: &str) -> Result<(), Problem> {
    let given = PasswordRecovery {
        phone: phone.to_owned(),
        country: None,
        phone_code: code.to_owned(),
        password: "another horse".to_owned(),
    };
    shop.app.recover_password(&shop.client, given).await
}

fn wrong(code: &str) -> String {
    format!("{}{}", &code[..5], if code.ends_with('7') { '8' } else { '7' })
}

#[tokio::test]
async fn nothing_asks_for_a_number_s_user_before_it_is_proved() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let shop = Shop::open_with(&VERIFYING, move |ports| {
        ports.users = Arc::new(Counting { inner: ports.users.clone(), calls: counted });
    })
    .await;
    assert!(matches!(register(&shop, PHONE, "123456").await, Err(Problem::CodeGone)));
    assert!(matches!(recover(&shop, PHONE, "123456").await, Err(Problem::CodeGone)));
    let code = ask(&shop, PHONE).await;
    assert!(matches!(register(&shop, PHONE, &wrong(&code)).await, Err(Problem::CodeWrong)));
    assert!(matches!(recover(&shop, PHONE, &wrong(&code)).await, Err(Problem::CodeWrong)));
    assert_eq!(calls.load(Ordering::SeqCst), 0, "time would tell who is registered");
    register(&shop, PHONE, &code).await.unwrap();
    assert!(calls.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn codes_and_numbers_are_not_logged() {
    let (lines, _guard) = Lines::keep();
    let shop = Shop::open(&VERIFYING).await;
    let first = ask(&shop, PHONE).await;
    assert!(matches!(register(&shop, PHONE, &wrong(&first)).await, Err(Problem::CodeWrong)));
    register(&shop, PHONE, &first).await.unwrap();
    let second = ask(&shop, PHONE).await;
    recover(&shop, PHONE, &second).await.unwrap();
    let third = ask(&shop, PHONE).await;
    // The number's limit is used up.
    let request = CodeRequest { phone: PHONE.to_owned(), country: None, captcha: None };
    let refused = shop.app.send_phone_code(&shop.client, request).await;
    assert!(matches!(refused, Err(Problem::RateLimited { name: "phone-code-hour", .. })));
    for event in ["phone-code-wrong", "password-recovered", "limit-reached"] {
        assert_eq!(lines.of(event).len(), 1, "{event}");
    }
    let text = lines.text();
    for secret in [&first, &second, &third, PHONE, &PHONE[2..]] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn a_code_proves_only_the_number_that_it_was_sent_to() {
    let shop = Shop::open(&VERIFYING).await;
    let code = ask(&shop, PHONE).await;
    assert!(matches!(register(&shop, OTHER, &code).await, Err(Problem::CodeGone)));
    let mut others = ask(&shop, OTHER).await;
    while others == code {
        shop.clock.advance_ms(3_600_000);
        others = ask(&shop, OTHER).await;
    }
    assert!(matches!(register(&shop, OTHER, &code).await, Err(Problem::CodeWrong)));
    // Who can write to the store still can't use the code for another number.
    let [phone, other] = [PHONE, OTHER].map(|text| Phone::from_e164(text).unwrap());
    let code = ask(&shop, PHONE).await;
    let (codes, now) = (&shop.app.ports.phone_codes, shop.app.now());
    let digest = codes.attempt(&phone, now).await.unwrap().unwrap();
    let moved = KeptCode { phone: other, digest, expires_at: now.plus_ms(9), attempts_left: 9 };
    codes.put(&moved, now).await.unwrap();
    assert!(matches!(register(&shop, OTHER, &code).await, Err(Problem::CodeWrong)));
    register(&shop, PHONE, &code).await.unwrap();
}

/// Two requests with one code: both are checked before either uses it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_code_makes_one_change() {
    let shop = Shop::open(&VERIFYING).await;
    let code = ask(&shop, PHONE).await;
    let one = register(&shop, PHONE, &code);
    let other = register(&shop, PHONE, &code);
    let (one, other) = tokio::join!(one, other);
    let (won, lost): (Vec<_>, Vec<_>) = [one, other].into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(matches!(lost[0], Err(Problem::CodeGone | Problem::PhoneTaken)), "{:?}", lost[0]);
    // Of two recoveries only the code refuses one.
    let code = ask(&shop, PHONE).await;
    let (one, other) = tokio::join!(recover(&shop, PHONE, &code), recover(&shop, PHONE, &code));
    let (won, lost): (Vec<_>, Vec<_>) = [one, other].into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(matches!(lost[0], Err(Problem::CodeGone)), "{:?}", lost[0]);
}
