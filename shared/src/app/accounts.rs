//! Registration, sign-in, sign-out.

use super::{
    App, Caller, CaptchaAnswer, Client, SessionClaims,
    fair_queue::Turn,
    finish,
    limits::RateLimit,
    passwords::{NO_PASSWORD, Queue, check_strength},
    phone_codes::Registering,
};
use crate::{
    api::{Account, SignedIn, UserView},
    domain::{
        AddressPrefix, CaptchaPurpose, Country, Opening, Phone, Role, Session, SessionId, Subject,
        Timestamp, User, UserChange, UserCreated, UserId,
    },
    metrics::{self, Outcomes},
    ports::Stored,
    problem::Problem,
    security,
};

static REGISTRATIONS: Outcomes = Outcomes::new(metrics::REGISTRATIONS);
static SIGN_INS: Outcomes = Outcomes::new(metrics::SIGN_INS);

/// Input of registration and sign-in. It has no `Debug`, because it holds a password.
pub struct Credentials {
    /// The phone number, in any usual notation.
    pub phone: String,
    /// The country of a number in national notation.
    pub country: Option<Country>,
    /// As typed.
    pub password: String,
    /// The answer to a captcha, where one is required.
    pub captcha: Option<CaptchaAnswer>,
}

impl From<Account> for Credentials {
    fn from(account: Account) -> Self {
        let Account { phone, country, password, captcha_id, captcha_answer } = account;
        Self { phone, country, password, captcha: CaptchaAnswer::given(captcha_id, captcha_answer) }
    }
}

impl App {
    /// Registers a shopper.
    ///
    /// # Errors
    /// `invalid-phone`, `weak-password`, `phone-taken`, `captcha-*`, `rate-limited`, `banned`; where
    /// numbers are verified `code-wrong` and `code-gone`, and `phone-taken` only with the right
    /// code.
    pub async fn register(
        &self,
        client: &Client,
        given: impl Into<Registering>,
    ) -> Result<UserView, Problem> {
        REGISTRATIONS.note("registered", self.make_user(client, given.into()).await)
    }

    async fn make_user(&self, client: &Client, given: Registering) -> Result<UserView, Problem> {
        let Registering { credentials: given, phone_code } = given;
        let phone = Phone::parse(&given.phone, given.country)?;
        check_strength("password", &given.password, &phone)?;
        self.enter_anonymous(client, RateLimit::Register, Some(&phone)).await?;
        let proof = if self.config.verifies_phones() {
            // The code was sent for a captcha.
            Some(self.prove_phone(client, &phone, phone_code.as_deref()).await?)
        } else {
            self.check_captcha(client, CaptchaPurpose::Login, given.captcha).await?;
            None
        };
        self.refuse_banned(client, &[Subject::Phone(phone.clone())]).await?;
        // The code stays valid: with it the number's owner can replace the password.
        if self.ports.users.by_phone(&phone).await?.is_some() {
            return Err(Problem::PhoneTaken);
        }
        let prefix = AddressPrefix::of(client.address);
        let password_hash =
            self.passwords.hash(Queue::Registration, prefix, given.password, self.salt()).await;
        let password_hash =
            password_hash.inspect_err(|problem| self.note_refused(problem, client, None))?;
        let app = self.clone();
        let user = finish(async move {
            let verified_at = match proof {
                Some(proof) => Some(app.use_proof(&proof).await?),
                None => None,
            };
            app.store_user(phone, password_hash, Role::Shopper, verified_at).await
        });
        Ok(UserView::from(&user.await?))
    }

    /// Stores a user of any role, for the operator's command line. The operator's word counts as
    /// proof of the phone.
    ///
    /// # Errors
    /// `weak-password`, `phone-taken`.
    pub async fn add_user(
        &self,
        phone: Phone,
        password: String,
        role: Role,
    ) -> Result<User, Problem> {
        check_strength("password", &password, &phone)?;
        let here = AddressPrefix::of(std::net::Ipv4Addr::LOCALHOST.into());
        let password_hash =
            self.passwords.hash(Queue::Registration, here, password, self.salt()).await?;
        self.store_user(phone, password_hash, role, Some(self.now())).await
    }

    async fn store_user(
        &self,
        phone: Phone,
        password_hash: String,
        role: Role,
        phone_verified_at: Option<Timestamp>,
    ) -> Result<User, Problem> {
        let now = self.now();
        let user = User {
            user_id: UserId::new(now, &self.ten()),
            phone,
            password_hash,
            role,
            created_at: now,
            generation: 0,
            phone_verified_at,
        };
        match self.ports.users.create(&user).await? {
            UserCreated::Created => Ok(user),
            UserCreated::PhoneTaken => Err(Problem::PhoneTaken),
        }
    }

    /// Signs a user in.
    ///
    /// # Errors
    /// `invalid-phone`, `bad-credentials`, `captcha-*` after failures, `rate-limited`, `banned`.
    pub async fn sign_in(&self, client: &Client, given: Credentials) -> Result<SignedIn, Problem> {
        SIGN_INS.note("opened", self.check_credentials(client, given).await)
    }

    async fn check_credentials(
        &self,
        client: &Client,
        given: Credentials,
    ) -> Result<SignedIn, Problem> {
        let phone = Phone::parse(&given.phone, given.country)?;
        self.enter_anonymous(client, RateLimit::Login, Some(&phone)).await?;
        if self.sign_in_needs_captcha(&Subject::Phone(phone.clone()), client).await? {
            // A captcha slows guessing from many addresses at once without locking the owner out.
            self.check_captcha(client, CaptchaPurpose::Login, given.captcha).await?;
        }
        let user = self.ports.users.by_phone(&phone).await?;
        let turn = self.passwords.turn(Queue::SignIn, AddressPrefix::of(client.address)).await;
        let turn = turn.inspect_err(|problem| self.note_refused(problem, client, None))?;
        let (app, client) = (self.clone(), client.clone());
        // This goes on when the client disconnects: otherwise a client that hangs up early could
        // guess without being counted.
        finish(async move { app.sign_in_in_turn(turn, &client, phone, given.password, user).await })
            .await
    }

    /// Verifies the password, and counts a failure or opens the session.
    async fn sign_in_in_turn(
        &self,
        turn: Turn,
        client: &Client,
        phone: Phone,
        password: String,
        user: Option<User>,
    ) -> Result<SignedIn, Problem> {
        let failures_of = Subject::Phone(phone);
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let right = self.passwords.verify(turn, password, hash).await?;
        let user_id = user.as_ref().map(|user| user.user_id);
        let (true, Some(user)) = (right, user) else {
            security::sign_in_failed(client.address, user_id);
            let (window_ms, now) = (self.config.login.failures_window_seconds * 1_000, self.now());
            let from = Subject::address(client.address);
            let added = futures_util::join!(
                self.ports.failures.add(&failures_of, window_ms, now),
                self.ports.failures.add(&from, window_ms, now)
            );
            added.0?;
            added.1?;
            return Err(Problem::BadCredentials);
        };
        self.ports.failures.clear(&failures_of).await?;
        self.open_session(user, client).await
    }

    /// Opens a session for a user whose password was right, unless a ban is in force. A user's ban
    /// is revealed only here, to a caller that knows the password.
    async fn open_session(&self, user: User, client: &Client) -> Result<SignedIn, Problem> {
        let (user, session, token) = self.enlist_session(user).await?;
        let caller = Caller { session: self.read_session(&token).await?, client: client.clone() };
        let admitted = async {
            // Bans are read after the session was opened: a ban created later finds the session and
            // ends it. They are read from the ledger, because the fast store may just have lost its
            // bans.
            let also = [Subject::User(user.user_id), Subject::Phone(user.phone.clone())];
            self.refuse_banned(client, &also).await?;
            let shared =
                self.share_sessions(vec![session.clone()]).await?.remove(&session.session_id);
            if shared.transpose()?.is_none() {
                // The session has ended meanwhile, most likely by such a ban.
                self.refuse_banned(client, &also).await?;
                return Err(Problem::Unavailable { retry_after_ms: 1_000 });
            }
            self.enter(&caller, RateLimit::Account).await
        };
        match admitted.await {
            Ok(()) => {
                Ok(SignedIn { token, expires_at: session.expires_at, user: UserView::from(&user) })
            }
            Err(problem) => {
                self.end_session(caller.session.user_id, caller.session.session_id).await?;
                Err(problem)
            }
        }
    }

    /// Opens a session in the ledger for a user who still has the verified hash. Returns the user
    /// as it is now.
    async fn enlist_session(&self, mut user: User) -> Result<(User, Session, String), Problem> {
        const ATTEMPTS: usize = 3;
        for _ in 0..ATTEMPTS {
            let (session, token) = self.new_session(&user).await?;
            let opening = Opening { session: session.clone(), generation: user.generation };
            if !self.ports.session_ledger.open(&[opening], self.now()).await?.is_empty() {
                return Ok((user, session, token));
            }
            // The user has signed out everywhere, or was changed, since it was read. The
            // verification still counts if the hash is the same.
            let current = self.ports.users.by_id(user.user_id).await?;
            user = current
                .filter(|current| current.password_hash == user.password_hash)
                .ok_or(Problem::BadCredentials)?;
        }
        Err(Problem::Unavailable { retry_after_ms: 1_000 })
    }

    /// Refuses when a ban in the ledger, made by an operator, is in force: on the client's address,
    /// on a network around it, or on one of the subjects in `also`.
    pub(super) async fn refuse_banned(
        &self,
        client: &Client,
        also: &[Subject],
    ) -> Result<(), Problem> {
        let now = self.now();
        let mut subjects = Subject::of_client(client.address);
        subjects.extend_from_slice(also);
        let kept = self.ports.ban_ledger.of(&subjects).await?;
        let ends = kept.into_iter().filter(|kept| kept.holds(now)).map(|kept| kept.ban.expires_at);
        // The answer names the latest end; `None` is a ban without end.
        let until = ends.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)));
        until.map_or(Ok(()), |until| Err(Problem::Banned { until }))
    }

    /// Ends a session, in the ledger first.
    async fn end_session(&self, user_id: UserId, session_id: SessionId) -> Result<(), Problem> {
        self.ports.session_ledger.end(user_id, session_id, self.now()).await?;
        // If this fails, the sweeper ends it there.
        Ok(self.ports.sessions.end(user_id, session_id).await?)
    }

    /// Applies a change that ends the user's sessions; `false` when the user has changed meanwhile
    /// or no longer exists.
    pub(super) async fn change_user(
        &self,
        user_id: UserId,
        change: UserChange,
    ) -> Result<bool, Problem> {
        if !self.ports.users.change(user_id, &change, self.now()).await? {
            return Ok(false);
        }
        if let Err(error) = self.ports.sessions.end_all(user_id, change.keep).await {
            tracing::warn!(%error, %user_id, "sessions have ended in the ledger only; the sweeper will end them in the fast store");
        }
        Ok(true)
    }

    /// Whether a sign-in must bring a captcha before its password is hashed: after failures with
    /// the phone or from the address, and while the queue is so full that sign-ins without a
    /// captcha would take the places of those with one.
    async fn sign_in_needs_captcha(
        &self,
        phone: &Subject,
        client: &Client,
    ) -> Result<bool, Problem> {
        let (from, now, login) = (Subject::address(client.address), self.now(), self.config.login);
        let (of_phone, of_address) = futures_util::join!(
            self.ports.failures.count(phone, now),
            self.ports.failures.count(&from, now)
        );
        Ok(of_phone? >= login.failures_before_captcha
            || of_address? >= login.address_failures_before_captcha
            || self.passwords.sign_ins_pile_up())
    }

    /// The user of a session.
    ///
    /// # Errors
    /// `unauthenticated`, `rate-limited`, `banned`.
    pub async fn current_session(&self, caller: &Caller) -> Result<(UserView, Timestamp), Problem> {
        self.enter(caller, RateLimit::Account).await?;
        let SessionClaims { user_id, exp, .. } = caller.session;
        let user = self.ports.users.by_id(user_id).await?.ok_or(Problem::Unauthenticated)?;
        Ok((UserView::from(&user), Timestamp::from_epoch_ms(exp.saturating_mul(1_000))))
    }

    /// Ends the session, or all of the user's.
    ///
    /// # Errors
    /// `unauthenticated`, `rate-limited`, `banned`.
    pub async fn sign_out(&self, caller: &Caller, everywhere: bool) -> Result<(), Problem> {
        self.enter(caller, RateLimit::Account).await?;
        let (app, SessionClaims { user_id, session_id, .. }) =
            (self.clone(), caller.session.clone());
        finish(async move {
            if everywhere {
                app.change_user(user_id, UserChange::default()).await.map(drop)
            } else {
                app.end_session(user_id, session_id).await
            }
        })
        .await
    }

    /// Replaces the password; the user's other sessions end.
    ///
    /// # Errors
    /// `bad-credentials`, `weak-password`, `unauthenticated`, `rate-limited`, `banned`.
    pub async fn change_password(
        &self,
        caller: &Caller,
        old: String,
        new: String,
    ) -> Result<(), Problem> {
        self.enter(caller, RateLimit::Account).await?;
        let Caller { session: who, client } = caller;
        let user = self.ports.users.by_id(who.user_id).await?.ok_or(Problem::Unauthenticated)?;
        self.enter_anonymous(client, RateLimit::Login, Some(&user.phone)).await?;
        let prefix = AddressPrefix::of(client.address);
        let turn = self.passwords.turn(Queue::SignIn, prefix).await;
        let turn =
            turn.inspect_err(|problem| self.note_refused(problem, client, Some(who.user_id)))?;
        let (app, address, user_id, old_hash) =
            (self.clone(), client.address, user.user_id, user.password_hash);
        finish(async move {
            if app.passwords.verify(turn, old, Some(old_hash)).await? {
                return Ok(());
            }
            security::password_change_failed(address, user_id);
            Err(Problem::BadCredentials)
        })
        .await?;
        check_strength("new_password", &new, &user.phone)?;
        let hash = self.passwords.hash(Queue::SignIn, prefix, new, self.salt()).await?;
        let change = UserChange {
            only_generation: Some(user.generation),
            password_hash: Some(hash),
            keep: Some(who.session_id),
            ..UserChange::default()
        };
        let (app, user_id) = (self.clone(), user.user_id);
        let changed = finish(async move { app.change_user(user_id, change).await }).await?;
        // The user was changed meanwhile: the old password may no longer be right.
        if changed { Ok(()) } else { Err(Problem::BadCredentials) }
    }

    /// Sets a user's password, for the operator's command line; all of the user's sessions end.
    ///
    /// # Errors
    /// `not-found`, `weak-password`.
    pub async fn set_password(&self, phone: &Phone, password: String) -> Result<User, Problem> {
        let user = self.ports.users.by_phone(phone).await?.ok_or(Problem::NotFound)?;
        check_strength("password", &password, phone)?;
        let here = AddressPrefix::of(std::net::Ipv4Addr::LOCALHOST.into());
        let hash = self.passwords.hash(Queue::Registration, here, password, self.salt()).await?;
        let change = UserChange { password_hash: Some(hash), ..UserChange::default() };
        if self.change_user(user.user_id, change).await? {
            Ok(user)
        } else {
            Err(Problem::NotFound)
        }
    }

    /// Turns an administrator into a shopper, for the operator's command line; all of the user's
    /// sessions end.
    ///
    /// # Errors
    /// `not-found`, also when the user is not an administrator.
    pub async fn demote(&self, phone: &Phone) -> Result<User, Problem> {
        let user = self
            .ports
            .users
            .by_phone(phone)
            .await?
            .filter(|user| user.role == Role::Admin)
            .ok_or(Problem::NotFound)?;
        let change = UserChange { role: Some(Role::Shopper), ..UserChange::default() };
        if self.change_user(user.user_id, change).await? {
            Ok(user)
        } else {
            Err(Problem::NotFound)
        }
    }

    /// Stores `count` shoppers without a usable password, each with a session, for load tests. They
    /// stand for shoppers who have proved their phone.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn seed_users(&self, count: u32) -> Result<Vec<(User, String)>, Problem> {
        const CHUNK: usize = 1_000;
        let now = self.now();
        let mut users = Vec::new();
        for _ in 0..count {
            let mut digits = [0; 8];
            self.ports.random.fill(&mut digits);
            // A range of Chinese mobile numbers; a number that is taken is left out below and drawn
            // again.
            let number = u64::from_be_bytes(digits) % 100_000_000;
            let phone = Phone::from_e164(&format!("+86139{number:08}")).map_err(Problem::from)?;
            let user_id = UserId::new(now, &self.ten());
            users.push(User {
                user_id,
                phone,
                password_hash: NO_PASSWORD.to_owned(),
                role: Role::Shopper,
                created_at: now,
                generation: 0,
                phone_verified_at: Some(now),
            });
        }
        let mut seeded = Vec::new();
        for chunk in users.chunks(CHUNK) {
            let stored: std::collections::HashSet<UserId> =
                self.ports.users.create_many(chunk).await?.into_iter().collect();
            let chunk: Vec<&User> =
                chunk.iter().filter(|user| stored.contains(&user.user_id)).collect();
            let (mut sessions, mut openings) =
                (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
            for user in chunk {
                let (session, token) = self.new_session(user).await?;
                openings.push(Opening { session: session.clone(), generation: user.generation });
                sessions.push(session);
                seeded.push((user.clone(), token));
            }
            // No client has these sessions yet, so none of them can end meanwhile.
            self.ports.session_ledger.open(&openings, now).await?;
            self.ports.sessions.open(&sessions, now).await?;
        }
        Ok(seeded)
    }

    async fn new_session(&self, user: &User) -> Stored<(Session, String)> {
        let now = self.now();
        let iat = now.epoch_ms() / 1_000;
        // Whole seconds, as in a JWT, so that token and store agree on the expiry.
        let exp = now.plus_ms(self.config.sessions.ms(user.role)).epoch_ms() / 1_000;
        let session_id = SessionId::new(now, &self.ten());
        let claims = SessionClaims { user_id: user.user_id, session_id, role: user.role, iat, exp };
        let expires_at = Timestamp::from_epoch_ms(exp * 1_000);
        let token = self.session_keys.ring(&self.ports).await?.sign(&claims);
        Ok((Session { session_id, user_id: user.user_id, role: user.role, expires_at }, token))
    }

    pub(super) fn salt(&self) -> [u8; 16] {
        let mut salt = [0; 16];
        self.ports.random.fill(&mut salt);
        salt
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        config::Config,
        domain::{Captcha, CaptchaId, CaptchaKind},
    };

    fn given(phone: &str, captcha: Option<CaptchaAnswer>) -> Credentials {
        Credentials {
            phone: phone.to_owned(),
            country: None,
            password: "correct horse".to_owned(),
            captcha,
        }
    }

    fn client(number: u8) -> Client {
        Client { address: std::net::Ipv4Addr::new(10, 0, number, 1).into() }
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_flood_of_unknown_numbers_does_not_close_sign_in_or_registration() {
        let dir =
            std::env::temp_dir().join(format!("flashsale-sign-in-{}", crate::testing::order_id()));
        let settings = [("DATA_DIR", dir.to_str().unwrap()), ("LOGIN__HASHES_WAITING_MAX", "16")];
        let env = settings.map(|(name, value)| (format!("FLASHSALE_{name}"), value.to_owned()));
        let config = Config::load(None, env, []).unwrap();
        let app = App::new(config.clone(), crate::wire::connect(&config).await.unwrap()).unwrap();
        let phone = "+12015550123";
        app.add_user(Phone::from_e164(phone).unwrap(), "correct horse".to_owned(), Role::Shopper)
            .await
            .unwrap();
        let right_answer = async || {
            let captcha = Captcha {
                captcha_id: CaptchaId::new(app.now(), &app.ten()),
                kind: CaptchaKind::Image,
                purpose: CaptchaPurpose::Login,
                secret: "kpt4x".to_owned(),
                expires_at: app.now().plus_ms(60_000),
            };
            app.ports.captchas.put(&captcha, app.now()).await.unwrap();
            Some(CaptchaAnswer { captcha_id: captcha.captcha_id, answer: captcha.secret })
        };

        let held = app.passwords.hold_all();
        let flood: Vec<_> = (0..8_u8)
            .map(|number| {
                let app = app.clone();
                tokio::spawn(async move {
                    app.sign_in(&client(number), given(&format!("+1201555016{number}"), None))
                        .await
                        .map(drop)
                })
            })
            .collect();
        until("the flood fills half of the queue", || app.passwords.waiting(Queue::SignIn) == 8)
            .await;

        // A sign-in without a captcha gets no more places; one with a captcha does.
        let stranger = client(100);
        let refused = tokio::time::timeout(
            Duration::from_secs(20),
            app.sign_in(&stranger, given(phone, None)),
        )
        .await;
        let refused = refused.expect("a refusal does not wait for a turn").map(drop).unwrap_err();
        assert!(matches!(refused, Problem::CaptchaRequired), "{refused:?}");
        assert_eq!(app.passwords.waiting(Queue::SignIn), 8);
        let honest = tokio::spawn({
            let (app, captcha) = (app.clone(), right_answer().await);
            async move { app.sign_in(&client(100), given(phone, captcha)).await.map(drop) }
        });
        until("the honest one waits", || app.passwords.waiting(Queue::SignIn) == 9).await;
        // Registrations have their own places.
        let registration = tokio::spawn({
            let (app, captcha) = (app.clone(), right_answer().await);
            async move { app.register(&client(101), given("+12015550199", captcha)).await.map(drop) }
        });
        until("the registration waits elsewhere", || {
            app.passwords.waiting(Queue::Registration) == 1
        })
        .await;
        assert_eq!(app.passwords.waiting(Queue::SignIn), 9);

        drop(held);
        honest.await.unwrap().unwrap();
        registration.await.unwrap().unwrap();
        for request in flood {
            assert!(matches!(request.await.unwrap(), Err(Problem::BadCredentials)));
        }
        drop(app);
        let _ = std::fs::remove_dir_all(dir);
    }
}
