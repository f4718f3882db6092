//! Codes of phones. Suites can share a store: each uses its own phones and days.

use std::sync::Arc;

use crate::{
    domain::{CodeDigest, KeptCode, Phone, Timestamp},
    ports::PhoneCodes,
    testing::{START, phone, user_id},
};

const LIFE_MS: u64 = 600_000;

type Codes = Arc<dyn PhoneCodes>;

fn code(phone: &Phone, byte: u8, attempts_left: u32) -> KeptCode {
    KeptCode {
        phone: phone.clone(),
        digest: CodeDigest([byte; 32]),
        expires_at: START.plus_ms(LIFE_MS),
        attempts_left,
    }
}

async fn put(codes: &Codes, code: &KeptCode) {
    codes.put(code, START).await.expect("a code is kept");
}

async fn attempt(codes: &Codes, phone: &Phone, now: Timestamp) -> Option<u8> {
    let digest = codes.attempt(phone, now).await.expect("a code is tried");
    digest.map(|digest| {
        assert_eq!(digest.0, [digest.0[0]; 32]);
        digest.0[0]
    })
}

async fn redeem(codes: &Codes, phone: &Phone, byte: u8, now: Timestamp) -> bool {
    codes.redeem(phone, CodeDigest([byte; 32]), now).await.expect("a code is redeemed")
}

/// A number has one code, the newest, until it expires. Numbers are independent.
pub async fn replaced_and_expired(codes: &Codes) {
    let (one, other) = (phone(), phone());
    assert_eq!(attempt(codes, &one, START).await, None);
    assert!(!redeem(codes, &one, 1, START).await);
    put(codes, &code(&one, 0x01, 3)).await;
    put(codes, &code(&other, 0xf9, 3)).await;
    assert_eq!(attempt(codes, &one, START).await, Some(0x01));
    put(codes, &code(&one, 0xa2, 3)).await;
    assert!(!redeem(codes, &one, 0x01, START).await, "it was replaced");
    let last = START.plus_ms(LIFE_MS - 1);
    // A new code has all its attempts.
    for _ in 0..3 {
        assert_eq!(attempt(codes, &one, last).await, Some(0xa2));
    }
    let over = START.plus_ms(LIFE_MS);
    assert_eq!(attempt(codes, &other, over).await, None);
    assert!(!redeem(codes, &one, 0xa2, over).await);
    assert!(redeem(codes, &one, 0xa2, last).await);
    assert_eq!(attempt(codes, &other, last).await, Some(0xf9), "another number's code stays");
}

/// However many try at once, a code is tried as often as it has attempts.
pub async fn attempts_are_counted(codes: &Codes) {
    let phone = phone();
    put(codes, &code(&phone, 7, 5)).await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (codes, phone) = (Arc::clone(codes), phone.clone());
            tokio::spawn(async move { attempt(&codes, &phone, START).await })
        })
        .collect();
    let mut tried = 0;
    for task in tasks {
        tried += u32::from(task.await.expect("the task ends") == Some(7));
    }
    assert_eq!(tried, 5);
    assert_eq!(attempt(codes, &phone, START).await, None);
    assert!(redeem(codes, &phone, 7, START).await, "the last attempt may have been right");
}

/// Only one caller uses a code.
pub async fn redeemed_once(codes: &Codes) {
    let phone = phone();
    put(codes, &code(&phone, 7, 5)).await;
    assert!(!redeem(codes, &phone, 8, START).await, "another code");
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (codes, phone) = (Arc::clone(codes), phone.clone());
            tokio::spawn(async move { redeem(&codes, &phone, 7, START).await })
        })
        .collect();
    let mut redeemed = 0;
    for task in tasks {
        redeemed += u32::from(task.await.expect("the task ends"));
    }
    assert_eq!(redeemed, 1);
    assert_eq!(attempt(codes, &phone, START).await, None);
}

/// A day has so many messages and no more, whoever counts them. Each day counts for itself.
pub async fn messages_of_a_day(codes: &Codes) {
    let random = *user_id().as_bytes();
    let day = u32::from_be_bytes([random[12], random[13], random[14], random[15]]) / 2;
    codes.uncount_message(day).await.expect("nothing is taken back");
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let codes = Arc::clone(codes);
            tokio::spawn(async move { codes.count_message(day, 10).await.expect("it counts") })
        })
        .collect();
    let mut counted = 0;
    for task in tasks {
        counted += u32::from(task.await.expect("the task ends"));
    }
    assert_eq!(counted, 10);
    let count = async |day, most| codes.count_message(day, most).await.expect("it counts");
    assert!(!count(day, 10).await);
    assert!(count(day, 11).await, "the operator has raised the budget");
    for _ in 0..2 {
        codes.uncount_message(day).await.expect("one is taken back");
    }
    assert!(count(day, 10).await);
    assert!(!count(day, 10).await);
    assert!(count(day + 1, 1).await, "the next day");
    assert!(!count(day + 1, 1).await);
}
