//! Phone numbers proved: from the request for a code, through a gateway of the test's own, to a
//! registration and a new password; on every backend and host.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use flashsale::testing::{GatewayAnswer, SmsGateway};
use serde_json::{Value, json};

use crate::{client::Client, emulator::Place};

const PHONE: &str = "+12015550125";
const PASSWORD: &str = "correct horse";
const NEW_PASSWORD: &str = "battery staple";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn with_gateway(place: Place, url: &str) -> Place {
    place
        .set("PHONE_VERIFICATION", "webhook")
        .set("SMS_WEBHOOK__URL", url)
        .set("SMS_WEBHOOK__SECRETS", SECRET)
}

async fn ask(client: &Client) {
    let asked = client.post("/api/phone-codes", None, json!({ "phone": PHONE })).await.expect(202);
    assert!(asked.json()["expires_at"].is_string());
}

/// Registers with a code and replaces the password with another. `code` is the code of the latest
/// message.
async fn prove(client: &Client, code: impl Fn() -> String) {
    ask(client).await;
    let first = code();
    let registration =
        |code: &str| json!({ "phone": PHONE, "password": PASSWORD, "phone_code": code });
    let other = if first == "000000" { "000001" } else { "000000" };
    client.post("/api/users", None, registration(other)).await.expect_problem(422, "code-wrong");
    client.post("/api/users", None, registration(&first)).await.expect(201);
    client.post("/api/users", None, registration(&first)).await.expect_problem(410, "code-gone");
    let sign_in = async |password: &str| {
        let body = json!({ "phone": PHONE, "password": password });
        client.post("/api/sessions", None, body).await
    };
    let token = sign_in(PASSWORD).await.expect(201).text("token");
    client.get("/api/sessions/current", Some(&token)).await.expect(200);

    ask(client).await;
    let second = code();
    let recovery =
        |code: &str| json!({ "phone": PHONE, "password": NEW_PASSWORD, "phone_code": code });
    let recover =
        async |code: &str| client.call("PUT", "/api/users/password", None, recovery(code)).await;
    recover(&second).await.expect(204);
    client.get("/api/sessions/current", Some(&token)).await.expect_problem(401, "unauthenticated");
    sign_in(PASSWORD).await.expect_problem(401, "bad-credentials");
    sign_in(NEW_PASSWORD).await.expect(201);
    recover(&second).await.expect_problem(410, "code-gone");
}

async fn a_number_is_proved(place: impl Fn() -> Place) {
    // It fails once, which nobody notices.
    let gateway = SmsGateway::start([GatewayAnswer::Status(500)]).await;
    let place = with_gateway(place(), &gateway.url).with_log("info");
    let emulator = place.start(&[]);
    let code = || {
        let last = gateway.received().pop().expect("a message was sent");
        let message: Value = serde_json::from_slice(&last.body).unwrap();
        assert_eq!(message["phone"], PHONE);
        message["code"].as_str().unwrap().to_owned()
    };
    prove(&emulator.client, code).await;
    assert_eq!(gateway.received().len(), 3);
    let log = place.log();
    for request in gateway.received() {
        let message: Value = serde_json::from_slice(&request.body).unwrap();
        assert!(!log.contains(message["code"].as_str().unwrap()), "{log}");
    }
    assert!(!log.contains(PHONE) && !log.contains("2015550125"), "{log}");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_proved_embedded() {
    a_number_is_proved(Place::embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_number_is_proved_on_servers() {
    a_number_is_proved(Place::servers).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_number_is_proved_by_processes() {
    a_number_is_proved(Place::processes).await;
}

/// The example of infra/OPERATE.md, which checks the signature in another language.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python: infra/test runs it"]
async fn the_example_of_a_gateway_takes_messages() {
    let mut receiver = Receiver::start(SECRET);
    let place = with_gateway(Place::embedded(), &receiver.url);
    let emulator = place.start(&[]);
    ask(&emulator.client).await;
    let line = receiver.line();
    let code = line
        .strip_prefix(&format!("to {PHONE}: Your code is "))
        .unwrap_or_else(|| panic!("{line}"));
    let body = json!({
        "phone": PHONE,
        "password": PASSWORD,
        "phone_code": code.trim_end_matches('.'),
    });
    emulator.client.post("/api/users", None, body).await.expect(201);
    emulator.stop();

    // With another secret it takes none.
    let stranger = Receiver::start("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let place = with_gateway(Place::embedded(), &stranger.url);
    let emulator = place.start(&[]);
    let refused = emulator.client.post("/api/phone-codes", None, json!({ "phone": PHONE })).await;
    refused.expect_problem(503, "unavailable");
    emulator.stop();
}

/// `infra/sms/receiver.py`, until it is dropped.
struct Receiver {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    url: String,
}

impl Receiver {
    fn start(secret: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/sms/receiver.py");
        let mut child = Command::new("python3")
            .args(["-B", script, "127.0.0.1:0"])
            .env("FLASHSALE_SMS_WEBHOOK__SECRETS", secret)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("it says where it listens").unwrap();
        let url = line.strip_prefix("listening on ").unwrap().to_owned();
        Self { child, lines, url }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it prints messages").unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
