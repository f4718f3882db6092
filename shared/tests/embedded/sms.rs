//! The senders of text messages, and a gateway that is fast, slow, full or broken.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{
    adapters::{
        sms::{LogSms, WebhookSettings, WebhookSms},
        system::SystemRandom,
    },
    contract_tests,
    ports::{SmsSender, StoreError},
    testing::{
        GatewayAnswer, ManualClock, START, SmsGateway,
        contract::sms::{SmsPorts, sms},
    },
};
use ring::hmac;
use serde_json::{Value, json};

use crate::flood::Lines;

const SECRETS: [&[u8]; 2] = [b"twenty-four random bytes", b"the secret that was before"];

fn settings(url: &str) -> WebhookSettings {
    WebhookSettings {
        url: url.to_owned(),
        secrets: SECRETS.map(<[u8]>::to_vec).to_vec(),
        timeout: Duration::from_secs(4),
        attempt_timeout: Duration::from_millis(500),
        attempts_max: 3,
        at_once_max: 4,
        waiting_max: 100,
    }
}

fn sender(settings: WebhookSettings) -> WebhookSms {
    let clock = Arc::new(ManualClock::at(START));
    WebhookSms::new(settings, clock, Arc::new(SystemRandom)).unwrap()
}

/// A gateway that behaves so, and a sender to it.
async fn gateway(script: impl IntoIterator<Item = GatewayAnswer>) -> (SmsGateway, WebhookSms) {
    let gateway = SmsGateway::start(script).await;
    let sender = sender(settings(&gateway.url));
    (gateway, sender)
}

async fn log() -> (impl Sized, SmsPorts) {
    let (lines, guard) = Lines::keep();
    (guard, SmsPorts { sender: Arc::new(LogSms), delivered: Box::new(move || lines.text()) })
}

async fn webhook() -> ((), SmsPorts) {
    let (gateway, sender) = gateway([]).await;
    let delivered = move || {
        let bodies = gateway.received().into_iter().map(|request| request.body);
        bodies.map(|body| String::from_utf8(body.to_vec()).unwrap()).collect()
    };
    ((), SmsPorts { sender: Arc::new(sender), delivered: Box::new(delivered) })
}

mod sms_log {
    use super::*;
    contract_tests! { sms [] log() }
}

mod sms_webhook {
    use super::*;
    contract_tests! { sms [] webhook() }
}

#[tokio::test]
async fn a_request_is_signed_over_its_id_its_time_and_its_body() {
    let (gateway, sender) = gateway([]).await;
    let sms = sms();
    sender.send(&sms).await.unwrap();
    let request = gateway.received().remove(0);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected = json!({
        "type": "phone-code",
        "phone": sms.phone,
        "code": sms.code.as_str(),
        "expires_at": sms.expires_at,
    });
    assert_eq!(body, expected);
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("webhook-id"), sms.sms_id.to_string());
    let timestamp = (START.epoch_ms() / 1_000).to_string();
    assert_eq!(request.header("webhook-timestamp"), timestamp);
    let signed = [format!("{}.{timestamp}.", sms.sms_id).as_bytes(), &request.body].concat();
    let signatures = request.header("webhook-signature");
    let signatures: Vec<&str> = signatures.split(' ').collect();
    assert_eq!(signatures.len(), SECRETS.len());
    for (signature, secret) in signatures.iter().zip(SECRETS) {
        let tag = BASE64.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::verify(&key, &signed, &tag).unwrap();
    }
}

#[tokio::test]
async fn a_gateway_that_fails_for_a_moment_is_asked_again_with_the_same_id() {
    for status in [500, 502, 503, 408, 425, 429] {
        let (gateway, sender) =
            gateway([GatewayAnswer::Status(status), GatewayAnswer::Status(200)]).await;
        sender.send(&sms()).await.unwrap();
        let received = gateway.received();
        assert_eq!(received.len(), 2, "{status}");
        assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
        assert_eq!(received[0].body, received[1].body);
    }
}

#[tokio::test]
async fn a_gateway_that_keeps_failing_is_asked_so_often() {
    let (gateway, sender) = gateway([GatewayAnswer::Status(500); 10]).await;
    let error = sender.send(&sms()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "it may have sent: {error}");
    assert!(error.to_string().contains("500"), "{error}");
    assert_eq!(gateway.received().len(), 3);
}

#[tokio::test]
async fn a_gateway_that_refuses_is_not_asked_again() {
    for behaviour in [
        GatewayAnswer::Status(400),
        GatewayAnswer::Status(401),
        GatewayAnswer::Status(404),
        GatewayAnswer::Redirect(302),
        GatewayAnswer::Redirect(307),
    ] {
        let (gateway, sender) = gateway([behaviour]).await;
        let sms = sms();
        let error = sender.send(&sms).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{behaviour:?}: {error}");
        assert_eq!(gateway.received().len(), 1, "{behaviour:?}");
        let told = format!("{error} {error:?}");
        assert!(!told.contains(sms.code.as_str()) && !told.contains(sms.phone.as_str()), "{told}");
    }
}

#[tokio::test]
async fn a_slow_attempt_ends_and_the_next_one_may_succeed() {
    let slow = GatewayAnswer::After(Duration::from_secs(60));
    let (gateway, sender) = gateway([slow]).await;
    sender.send(&sms()).await.unwrap();
    assert_eq!(gateway.received().len(), 2);
}

#[tokio::test]
async fn all_attempts_together_have_a_time_limit() {
    let slow = GatewayAnswer::After(Duration::from_secs(60));
    let gateway = SmsGateway::start([slow; 10]).await;
    let limits = WebhookSettings {
        timeout: Duration::from_millis(700),
        attempts_max: 10,
        ..settings(&gateway.url)
    };
    let begun = Instant::now();
    let error = sender(limits).send(&sms()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(gateway.received().len() <= 2);
}

#[tokio::test]
async fn what_reached_nobody_was_not_sent() {
    // Port 1 is closed.
    let error = sender(settings("http://127.0.0.1:1/codes")).send(&sms()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_peer_that_is_no_http_server_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/codes", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let error = sender(settings(&url)).send(&sms()).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unknown { .. } | StoreError::Unavailable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn so_many_are_sent_at_once_and_so_many_wait() {
    let gateway = SmsGateway::start([GatewayAnswer::After(Duration::from_millis(50)); 100]).await;
    let limits = WebhookSettings { at_once_max: 2, waiting_max: 6, ..settings(&gateway.url) };
    let sender = Arc::new(sender(limits));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let sender = Arc::clone(&sender);
            tokio::spawn(async move { sender.send(&sms()).await })
        })
        .collect();
    let mut sent = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => sent += 1,
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
                assert!(error.to_string().contains("waiting_max"), "{error}");
            }
        }
    }
    assert_eq!(sent, 8, "two at once, six waiting");
    assert_eq!(gateway.at_once_max(), 2);
    assert_eq!(gateway.received().len(), 8);
}

#[tokio::test]
async fn an_address_must_be_one() {
    for url in ["", "sms.example.com", "ftp://sms.example.com"] {
        let made = WebhookSms::new(
            settings(url),
            Arc::new(ManualClock::at(START)),
            Arc::new(SystemRandom),
        );
        assert!(made.is_err(), "{url}");
    }
    sender(settings("https://sms.example.com/codes"));
}
