//! Captcha providers.

use std::{net::IpAddr, sync::Arc};

use crate::{
    ports::CaptchaProvider,
    testing::{FakeProvider, captcha_id},
};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// A token is good once, for the action and the captcha that it was made for.
pub async fn tokens(provider: &Arc<dyn CaptchaProvider>) {
    let accepts = async |token: &str, action, captcha_id| {
        let accepted = provider.accepts(token, action, captcha_id, ADDRESS).await;
        accepted.expect("the provider answers")
    };
    let id = captcha_id();
    let token = || FakeProvider::token("login", &id.to_string());
    let good = token();
    assert!(accepts(&good, "login", id).await);
    assert!(!accepts(&good, "login", id).await, "a second time");
    assert!(!accepts(&token(), "purchase", id).await);
    assert!(!accepts(&token(), "login", captcha_id()).await);
    for wrong in ["", "x", "good", "&secret=x", "\u{1f511}"] {
        assert!(!accepts(wrong, "login", id).await, "{wrong}");
    }
    assert!(accepts(&token(), "login", id).await);
}
