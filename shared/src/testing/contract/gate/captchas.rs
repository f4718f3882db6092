//! Captchas.

use std::sync::Arc;

use super::GatePorts;
use crate::{
    domain::{Captcha, CaptchaKind, CaptchaPurpose},
    testing::{START, captcha_id, sale_id, session_id, user_id},
};

fn purchase() -> CaptchaPurpose {
    CaptchaPurpose::Purchase { user_id: user_id(), session_id: session_id(), sale_id: sale_id() }
}

fn captcha(kind: CaptchaKind, purpose: CaptchaPurpose) -> Captcha {
    Captcha {
        captcha_id: captcha_id(),
        kind,
        purpose,
        secret: "k3 m".to_owned(),
        expires_at: START.plus_ms(1_000),
    }
}

/// Until it expires, a captcha can be read often and taken once.
pub async fn captchas(GatePorts { captchas, .. }: &GatePorts) {
    let peek = async |captcha: &Captcha, now| {
        captchas.peek(captcha.captcha_id, now).await.expect("a captcha is read")
    };
    let take = async |captcha: &Captcha, now| {
        captchas.take(captcha.captcha_id, now).await.expect("a captcha is taken")
    };
    let last = START.plus_ms(999);
    let kinds = CaptchaKind::ALL;
    for drawn in kinds
        .map(|kind| captcha(kind, CaptchaPurpose::Login))
        .into_iter()
        .chain(kinds.map(|kind| captcha(kind, purchase())))
    {
        assert_eq!(peek(&drawn, START).await, None);
        assert_eq!(take(&drawn, START).await, None);
        for _ in 0..2 {
            captchas.put(&drawn, START).await.expect("a captcha is kept");
        }
        for _ in 0..2 {
            assert_eq!(peek(&drawn, last).await.as_ref(), Some(&drawn));
        }
        assert_eq!(peek(&drawn, drawn.expires_at).await, None);
        assert_eq!(take(&drawn, last).await.as_ref(), Some(&drawn));
        assert_eq!(take(&drawn, last).await, None);
        assert_eq!(peek(&drawn, START).await, None);
    }
    let over = captcha(CaptchaKind::Image, CaptchaPurpose::Login);
    captchas.put(&over, START).await.expect("a captcha is kept");
    assert_eq!(take(&over, over.expires_at).await, None);

    for _ in 0..5 {
        let drawn = captcha(CaptchaKind::Image, purchase());
        captchas.put(&drawn, START).await.expect("a captcha is kept");
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (captchas, id) = (Arc::clone(captchas), drawn.captcha_id);
                tokio::spawn(
                    async move { captchas.take(id, START).await.expect("a captcha is taken") },
                )
            })
            .collect();
        let mut taken = Vec::new();
        for task in tasks {
            taken.extend(task.await.expect("the task ends"));
        }
        assert_eq!(taken, [drawn], "only one taker gets it");
    }
}

/// A token answers one captcha, however many ask at once.
pub async fn spent_tokens(GatePorts { captchas, .. }: &GatePorts) {
    let digest = || {
        let mut digest = [7; 32];
        digest[..16].copy_from_slice(captcha_id().as_bytes());
        digest
    };
    let (token, until) = (digest(), START.plus_ms(60_000));
    let spend = async |token: &[u8; 32], id, now| {
        captchas.spend(token, id, until, now).await.expect("a token is spent")
    };
    let (first, second) = (captcha_id(), captcha_id());
    assert!(spend(&token, first, START).await);
    assert!(spend(&token, first, START).await, "a repeat after an error");
    assert!(!spend(&token, second, START).await);
    assert!(!spend(&token, second, START.plus_ms(59_999)).await);
    assert!(spend(&digest(), second, START).await, "another token");

    let token = digest();
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let captchas = Arc::clone(captchas);
            tokio::spawn(async move {
                captchas.spend(&token, captcha_id(), until, START).await.expect("a token is spent")
            })
        })
        .collect();
    let mut spent = 0;
    for task in tasks {
        spent += usize::from(task.await.expect("the task ends"));
    }
    assert_eq!(spent, 1);
}
