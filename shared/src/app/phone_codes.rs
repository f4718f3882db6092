//! Proof of a phone number: a code is sent there by text message, and comes back with a
//! registration or with a new password.
//!
//! Nothing here may tell whether a number is registered, except to somebody who has proved to have
//! it. So a request for a code never reads the users: a code is sent, limited and counted in the
//! same way for every number, and the ledger is asked for the number's user only after the right
//! code. What can be learnt is that codes were lately sent to a number (its limit is used up, or a
//! code is there to be tried), by whomever and for whatever.

use std::fmt::Write as _;

use subtle::ConstantTimeEq as _;

use super::{
    App, CaptchaAnswer, Client,
    accounts::Credentials,
    finish,
    limits::RateLimit,
    passwords::{Queue, check_strength},
};
use crate::{
    api::{PasswordRecovery, PhoneCodeRequest, PhoneCodeSent, Registration},
    domain::{
        AddressPrefix, CaptchaPurpose, CodeDigest, Country, GateRequest, KeptCode, Phone,
        PhoneCode, PhoneRange, Role, Sms, SmsId, Subject, Timestamp, UserChange, UserId,
    },
    metrics::{self, Outcomes, SMS_SECONDS},
    ports::StoreError,
    problem::Problem,
    security,
};

static REQUESTS: Outcomes = Outcomes::new(metrics::PHONE_CODES);
static ANSWERS: Outcomes = Outcomes::new(metrics::PHONE_CODE_ANSWERS);
static RECOVERIES: Outcomes = Outcomes::new(metrics::PASSWORD_RECOVERIES);

const DAY_MS: i64 = 86_400_000;

/// Input of a request for a code.
pub struct CodeRequest {
    /// The phone number, in any usual notation.
    pub phone: String,
    /// The country of a number in national notation.
    pub country: Option<Country>,
    /// The answer to a captcha, unless captchas are off.
    pub captcha: Option<CaptchaAnswer>,
}

impl From<PhoneCodeRequest> for CodeRequest {
    fn from(request: PhoneCodeRequest) -> Self {
        let PhoneCodeRequest { phone, country, captcha_id, captcha_answer } = request;
        Self { phone, country, captcha: CaptchaAnswer::given(captcha_id, captcha_answer) }
    }
}

/// Input of a registration. It has no `Debug`, because it holds a password.
pub struct Registering {
    /// Number, password and captcha.
    pub credentials: Credentials,
    /// The code that was sent to the number, where numbers are verified.
    pub phone_code: Option<String>,
}

impl From<Registration> for Registering {
    fn from(given: Registration) -> Self {
        let Registration { phone, country, password, phone_code, captcha_id, captcha_answer } =
            given;
        let captcha = CaptchaAnswer::given(captcha_id, captcha_answer);
        Self { credentials: Credentials { phone, country, password, captcha }, phone_code }
    }
}

impl From<Credentials> for Registering {
    fn from(credentials: Credentials) -> Self {
        Self { credentials, phone_code: None }
    }
}

/// The right code of a number, not used yet.
pub(super) struct Proof {
    phone: Phone,
    digest: CodeDigest,
}

impl App {
    /// Sends a code to a phone.
    ///
    /// # Errors
    /// `invalid-phone`, `captcha-*`, `rate-limited`, `banned`; `unavailable` when the message was
    /// not handed over; `not-found` where numbers are not verified.
    pub async fn send_phone_code(
        &self,
        client: &Client,
        given: CodeRequest,
    ) -> Result<PhoneCodeSent, Problem> {
        REQUESTS.note("sent", self.ask_phone_code(client, given).await)
    }

    async fn ask_phone_code(
        &self,
        client: &Client,
        given: CodeRequest,
    ) -> Result<PhoneCodeSent, Problem> {
        if !self.config.verifies_phones() {
            return Err(Problem::NotFound);
        }
        let phone = Phone::parse(&given.phone, given.country)?;
        self.enter_anonymous(client, RateLimit::Login, Some(&phone)).await?;
        self.check_captcha(client, CaptchaPurpose::Login, given.captcha).await?;
        self.refuse_banned(client, &[Subject::Phone(phone.clone())]).await?;
        // Charged only now, so that a number can't be used up without solving captchas.
        self.enter_messages(client, &phone).await?;
        let (app, client) = (self.clone(), client.clone());
        finish(async move { app.send_code(&client, phone).await }).await
    }

    /// Charges a message to the address, the number and its range.
    async fn enter_messages(&self, client: &Client, phone: &Phone) -> Result<(), Problem> {
        let number = Subject::Phone(phone.clone());
        let limits = vec![
            self.limit(RateLimit::PhoneCode, Subject::address(client.address)),
            self.limit(RateLimit::PhoneCodeHour, number.clone()),
            self.limit(RateLimit::PhoneCodeDay, number),
            self.limit(RateLimit::PhoneCodeRange, Subject::PhoneRange(PhoneRange::of(phone))),
        ];
        let entry = GateRequest {
            session: None,
            role: None,
            not_banned: Vec::new(),
            limits,
            abuse: None,
            now: self.now(),
        };
        self.pass(client, entry).await
    }

    /// Makes a code, stores it and sends it.
    async fn send_code(&self, client: &Client, phone: Phone) -> Result<PhoneCodeSent, Problem> {
        let settings = self.config.phone_codes;
        let now = self.now();
        let day = now.epoch_ms() / DAY_MS;
        let today = u32::try_from(day).unwrap_or(0);
        if !self.ports.phone_codes.count_message(today, settings.messages_per_day_max).await? {
            let left_ms = (day + 1) * DAY_MS - now.epoch_ms();
            let problem = Problem::RateLimited {
                name: "phone-code-budget",
                quota: None,
                retry_after_ms: left_ms.unsigned_abs(),
            };
            self.note_refused(&problem, client, None);
            return Err(problem);
        }
        let sent = self.store_and_send(phone, now).await;
        if matches!(sent, Err(StoreError::Unavailable { .. }))
            && let Err(error) = self.ports.phone_codes.uncount_message(today).await
        {
            tracing::warn!(%error, "a text message that was not sent counts for today");
        }
        Ok(PhoneCodeSent { expires_at: sent? })
    }

    async fn store_and_send(&self, phone: Phone, now: Timestamp) -> Result<Timestamp, StoreError> {
        let settings = self.config.phone_codes;
        let mut random = [0; 8];
        self.ports.random.fill(&mut random);
        let code = PhoneCode::from_random(random);
        let expires_at = now.plus_ms(settings.ms());
        let keys = self.session_keys.ring(&self.ports).await?;
        let kept = KeptCode {
            phone: phone.clone(),
            digest: CodeDigest(keys.digest(&message(&phone, &code))),
            expires_at,
            attempts_left: settings.attempts_max,
        };
        // Stored before it is sent, so that nobody holds a code that is not valid yet.
        self.ports.phone_codes.put(&kept, now).await?;
        let sms = Sms { sms_id: SmsId::new(now, &self.ten()), phone, code, expires_at };
        let begun_ms = self.monotonic_ms();
        let sent = self.ports.sms.send(&sms).await;
        let outcome = match &sent {
            Ok(()) => "accepted",
            Err(StoreError::Unknown { .. }) => "unknown",
            Err(StoreError::Unavailable { .. } | StoreError::Corrupt { .. }) => "unavailable",
        };
        let took = std::time::Duration::from_millis(self.monotonic_ms().saturating_sub(begun_ms));
        SMS_SECONDS.histogram(&[outcome]).record(metrics::elapsed(took));
        sent.map(|()| expires_at)
    }

    /// Checks a code, which takes one of its attempts. It is not used up yet: that is
    /// [`App::use_proof`].
    pub(super) async fn prove_phone(
        &self,
        client: &Client,
        phone: &Phone,
        code: Option<&str>,
    ) -> Result<Proof, Problem> {
        let expected =
            "expected the six digits of the text message (POST /api/phone-codes sends it)";
        // What can't be a code takes no attempt.
        let code = code.and_then(PhoneCode::parse).ok_or_else(|| Problem::Invalid {
            field: "phone_code".to_owned(),
            expected: expected.to_owned(),
        })?;
        ANSWERS.note("right", self.compare_code(client, phone, &code).await)
    }

    async fn compare_code(
        &self,
        client: &Client,
        phone: &Phone,
        code: &PhoneCode,
    ) -> Result<Proof, Problem> {
        let keys = self.session_keys.ring(&self.ports).await?;
        let kept = self.ports.phone_codes.attempt(phone, self.now()).await?;
        let digest = kept.ok_or(Problem::CodeGone)?;
        let right = keys
            .digests(&message(phone, code))
            .map(|made| made.ct_eq(&digest.0))
            .fold(subtle::Choice::from(0), |any, one| any | one);
        if bool::from(right) {
            return Ok(Proof { phone: phone.clone(), digest });
        }
        security::phone_code_wrong(client.address);
        Err(Problem::CodeWrong)
    }

    /// Uses the code up, right before the change that it permits. Returns when the phone was
    /// proved.
    pub(super) async fn use_proof(&self, proof: &Proof) -> Result<Timestamp, Problem> {
        let now = self.now();
        let used = self.ports.phone_codes.redeem(&proof.phone, proof.digest, now).await?;
        if used { Ok(now) } else { Err(Problem::CodeGone) }
    }

    /// Replaces the password of a number's user, for somebody who has the phone. All of the user's
    /// sessions end. So the owner of a number gets it back from whoever registered it before
    /// without proof.
    ///
    /// # Errors
    /// `invalid-phone`, `weak-password`, `code-wrong`, `code-gone`, `rate-limited`, `banned`; only
    /// to somebody who has the phone: `not-found` when nobody is registered with it, `forbidden`
    /// for an administrator.
    pub async fn recover_password(
        &self,
        client: &Client,
        given: PasswordRecovery,
    ) -> Result<(), Problem> {
        RECOVERIES.note("recovered", self.replace_password(client, given).await)
    }

    async fn replace_password(
        &self,
        client: &Client,
        given: PasswordRecovery,
    ) -> Result<(), Problem> {
        if !self.config.verifies_phones() {
            return Err(Problem::NotFound);
        }
        let phone = Phone::parse(&given.phone, given.country)?;
        check_strength("password", &given.password, &phone)?;
        self.enter_anonymous(client, RateLimit::Login, Some(&phone)).await?;
        let proof = self.prove_phone(client, &phone, Some(&given.phone_code)).await?;
        // The code stays valid after the next two refusals: its owner may register with it.
        let user = self.ports.users.by_phone(&phone).await?.ok_or(Problem::NotFound)?;
        if user.role == Role::Admin {
            // A text message is too weak a proof for this: SIM cards are swapped, gateways read.
            return Err(Problem::Forbidden(
                "an administrator's password is set at the command line only",
            ));
        }
        let prefix = AddressPrefix::of(client.address);
        let hash =
            self.passwords.hash(Queue::Registration, prefix, given.password, self.salt()).await;
        let hash = hash.inspect_err(|problem| self.note_refused(problem, client, None))?;
        let (app, client, user_id) = (self.clone(), client.clone(), user.user_id);
        finish(async move { app.set_recovered(&client, user_id, proof, hash).await }).await
    }

    async fn set_recovered(
        &self,
        client: &Client,
        user_id: UserId,
        proof: Proof,
        password_hash: String,
    ) -> Result<(), Problem> {
        let proved_at = self.use_proof(&proof).await?;
        let change = UserChange {
            password_hash: Some(password_hash),
            phone_verified_at: Some(proved_at),
            ..UserChange::default()
        };
        if !self.change_user(user_id, change).await? {
            return Err(Problem::NotFound);
        }
        security::password_recovered(client.address, user_id);
        // The owner shall not solve captchas for somebody else's failures.
        if let Err(error) = self.ports.failures.clear(&Subject::Phone(proof.phone)).await {
            tracing::warn!(%error, "failed sign-ins before a recovery still count");
        }
        Ok(())
    }
}

/// What is hashed: begins unlike any token that the same key signs, and binds the code to the
/// phone.
fn message(phone: &Phone, code: &PhoneCode) -> Vec<u8> {
    let mut message = String::with_capacity(40);
    write!(message, "phone-code\0{}\0{}", phone.as_str(), code.as_str())
        .expect("writing to a String does not fail");
    message.into_bytes()
}
