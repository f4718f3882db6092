//! Proofs of work, and the level that an operator sets for all processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use altcha::{Challenge, SolveChallengeOptions, solve_challenge};
use async_trait::async_trait;
use flashsale::{
    adapters::memory::MemoryCache,
    app::{App, CaptchaAnswer, Credentials},
    domain::{AdminAction, CacheEntry, ChallengeLevel, KeptLevel, Timestamp},
    ports::{Cache, ChallengeLevels, Ports, StoreError, Stored},
    problem::Problem,
    testing::{PASSWORD, Shop, client_at, work_answer},
};
use serde_json::{Value, json};

const CLIENT: &str = "192.0.2.9";
/// Longer than a process remembers the level.
const LEVEL_LIFE: Duration = Duration::from_millis(1_100);

/// The first attempt proves a challenge of the normal level; under attack that is unlikely.
const SETTINGS: [(&str, &str); 4] = [
    ("CAPTCHA", "work"),
    ("CAPTCHAS__WORK__ROUNDS", "100"),
    ("CAPTCHAS__WORK__ATTEMPTS_MAX", "1"),
    ("CAPTCHAS__WORK__ATTEMPTS_UNDER_ATTACK_MAX", "1000000"),
];

async fn draw(app: &App) -> Value {
    let drawn = app.draw_login_captcha(&client_at(CLIENT)).await.unwrap();
    serde_json::to_value(&drawn).unwrap()
}

/// Whether a new challenge is proved by one of the first attempts.
async fn is_easy(app: &App) -> bool {
    let drawn = draw(app).await;
    let challenge = json!({ "parameters": drawn["parameters"], "signature": drawn["signature"] });
    let challenge: Challenge = serde_json::from_value(challenge).unwrap();
    let options = SolveChallengeOptions { timeout_ms: 1, ..SolveChallengeOptions::new(&challenge) };
    solve_challenge(options).unwrap().is_some()
}

/// A store whose calls fail while it is `down`.
struct Failing<T> {
    inner: T,
    down: Arc<AtomicBool>,
}

impl<T> Failing<T> {
    fn ask(&self) -> Stored<&T> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable { store: "test", cause: "down".to_owned() }),
            false => Ok(&self.inner),
        }
    }
}

#[async_trait]
impl ChallengeLevels for Failing<Arc<dyn ChallengeLevels>> {
    async fn get(&self) -> Stored<Option<KeptLevel>> {
        self.ask()?.get().await
    }

    async fn set(
        &self,
        level: ChallengeLevel,
        action: &AdminAction,
        now: Timestamp,
    ) -> Stored<KeptLevel> {
        self.ask()?.set(level, action, now).await
    }
}

#[async_trait]
impl Cache for Failing<Arc<dyn Cache>> {
    async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>> {
        self.ask()?.get(key, now).await
    }

    async fn put(&self, entries: &[CacheEntry], now: Timestamp) -> Stored<()> {
        self.ask()?.put(entries, now).await
    }
}

#[tokio::test]
async fn the_level_holds_for_all_processes_and_outlives_the_fast_store() {
    let shop = Shop::open(&SETTINGS).await;
    let (app, admin, other) = (&shop.app, shop.admin().await, shop.another());
    assert_eq!(app.challenge_level(&admin).await.unwrap().changed_at, None);
    assert!(is_easy(app).await && is_easy(&other).await);

    let set = app.set_challenge_level(&admin, ChallengeLevel::UnderAttack).await.unwrap();
    assert_eq!(set.changed_at, Some(app.now()));
    assert!(!is_easy(app).await, "this process follows at once");
    tokio::time::sleep(LEVEL_LIFE).await;
    assert!(!is_easy(&other).await, "the others within a second");

    // A new process, and a fast store that has lost its data.
    let ports = Ports { cache: Arc::new(MemoryCache::new()), ..app.ports.clone() };
    let restarted = App::new(app.config.clone(), ports).unwrap();
    assert!(!is_easy(&restarted).await);
    let kept = restarted.challenge_level(&admin).await.unwrap();
    assert_eq!((kept.level, kept.changed_at), (ChallengeLevel::UnderAttack, set.changed_at));

    app.set_challenge_level(&admin, ChallengeLevel::Normal).await.unwrap();
    assert!(is_easy(app).await);
    tokio::time::sleep(LEVEL_LIFE).await;
    assert!(is_easy(&other).await);
}

#[tokio::test]
async fn the_last_level_holds_while_no_store_answers() {
    let down = Arc::new(AtomicBool::new(false));
    let shop = Shop::open_with(&SETTINGS, |ports| {
        let (levels, cache) = (ports.challenge_levels.clone(), ports.cache.clone());
        ports.challenge_levels = Arc::new(Failing { inner: levels, down: down.clone() });
        ports.cache = Arc::new(Failing { inner: cache, down: down.clone() });
    })
    .await;
    let (app, admin) = (&shop.app, shop.admin().await);
    app.set_challenge_level(&admin, ChallengeLevel::UnderAttack).await.unwrap();
    assert!(!is_easy(app).await);
    down.store(true, Ordering::SeqCst);
    tokio::time::sleep(LEVEL_LIFE).await;
    assert!(!is_easy(app).await);
    assert!(is_easy(&shop.another()).await, "a process that never read it makes the usual ones");
    let failed = app.set_challenge_level(&admin, ChallengeLevel::Normal).await;
    assert!(matches!(failed, Err(Problem::Store(_))), "{failed:?}");
}

#[tokio::test]
async fn a_proof_registers_one_user_whichever_process_takes_it() {
    let shop = Shop::open(&SETTINGS).await;
    let (first, second) = (&shop.app, shop.another());
    let register = async |app: &App, number: u32, drawn: &Value, answer: &str| {
        let captcha = CaptchaAnswer {
            captcha_id: drawn["captcha_id"].as_str().unwrap().parse().unwrap(),
            answer: answer.to_owned(),
        };
        let given = Credentials {
            phone: format!("+1201555{number:04}"),
            country: None,
            password: PASSWORD.to_owned(),
            captcha: Some(captcha),
        };
        app.register(&client_at(CLIENT), given).await.map(drop)
    };
    let drawn = draw(first).await;
    assert_eq!(drawn["kind"], "work");
    assert_eq!(drawn["parameters"]["data"]["captcha_id"], drawn["captcha_id"]);
    let answer = work_answer(&drawn);
    register(&second, 111, &drawn, &answer).await.unwrap();
    for app in [first, &second] {
        let again = register(app, 112, &drawn, &answer).await;
        assert!(matches!(again, Err(Problem::CaptchaGone)), "{again:?}");
    }
    // A proof is good for its own captcha, and a wrong answer uses the captcha up.
    let other = draw(first).await;
    let wrong = register(first, 113, &other, &answer).await;
    assert!(matches!(wrong, Err(Problem::CaptchaWrong)), "{wrong:?}");
    let gone = register(first, 114, &other, &work_answer(&other)).await;
    assert!(matches!(gone, Err(Problem::CaptchaGone)), "{gone:?}");
    // Its life is counted by our clock.
    let late = draw(first).await;
    shop.clock.advance_ms(120_000);
    let late = register(first, 115, &late, &work_answer(&late)).await;
    assert!(matches!(late, Err(Problem::CaptchaGone)), "{late:?}");
}
