//! Settings that the production profile refuses.

use std::net::{IpAddr, SocketAddr};

use secrecy::ExposeSecret as _;

use super::{
    error::{ConfigError, bad},
    modes::{CaptchaMode, CookieSecure, PhoneVerification},
    network::{Network, is_private},
    settings::Config,
};

/// Name suffixes that no public name server resolves.
const INTERNAL_SUFFIXES: [&str; 5] = [".localhost", ".local", ".internal", ".lan", ".home.arpa"];

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    const KEY_NEEDED: &str =
        "the production profile needs a key of its own: \"kid:base64 of 32 random bytes\"";
    if !config.is_production() {
        return Ok(());
    }
    if config.session_keys()?.is_empty() {
        return Err(bad("session_keys", KEY_NEEDED));
    }
    if config.ticket_keys()?.is_empty() {
        return Err(bad("ticket_keys", KEY_NEEDED));
    }
    if config.captcha == CaptchaMode::Off {
        return Err(bad(
            "captcha",
            "the production profile needs \"image\", \"work\" or \"provider\"",
        ));
    }
    if config.phone_verification == PhoneVerification::Log {
        return Err(bad(
            "phone_verification",
            "the production profile needs \"off\" or \"webhook\": who reads the log could take over any account",
        ));
    }
    if config.cookie_secure == CookieSecure::Never {
        return Err(bad("cookie_secure", "the production profile needs \"auto\" or \"always\""));
    }
    if config.trusted_proxies.iter().any(Network::is_too_wide) {
        let expected = "the production profile refuses networks wider than /8 (IPv6: /7): every client in them could claim any address";
        return Err(bad("trusted_proxies", expected));
    }
    if let Ok(address) = config.admin_listen.parse::<SocketAddr>()
        // Listening on all addresses of this machine: only when the emulator starts to listen is it
        // known whether one of them is public.
        && !is_private(address.ip())
        && !address.ip().is_unspecified()
    {
        let expected = "the production profile needs a private address of this machine, such as 127.0.0.1 or 10.0.0.5: metrics are not public";
        return Err(bad("admin_listen", expected));
    }
    if !config.invoke_listen.is_empty() {
        return Err(bad(
            "invoke_listen",
            "the production profile has no Invoke API: who may invoke a function may do what it does",
        ));
    }
    let plain = [
        (
            "redis_url",
            config.redis_url.expose_secret(),
            "rediss://, rediss+cluster:// or rediss+sentinel://",
        ),
        ("database_url", config.database_url.expose_secret(), "?ssl-mode=REQUIRED"),
        ("amqp_url", config.amqp_url.expose_secret(), "amqps://"),
        ("traces.endpoint", config.traces.endpoint.as_str(), "https://"),
        ("sms_webhook.url", config.sms_webhook.url.as_str(), "https://"),
        ("captchas.provider.verify_url", config.captchas.provider.verify_url(), "https://"),
    ];
    for (key, url, with_tls) in plain {
        if let Some(host) =
            plaintext_hosts(url).find(|host| !may_be_plain(host, &config.plaintext_hosts))
        {
            let expected = format!(
                "the production profile needs TLS ({with_tls}) to {host}, which is no private address or internal name; if its \
                 name stands for a private address, put it into plaintext_hosts"
            );
            return Err(bad(key, expected));
        }
    }
    Ok(())
}

/// The hosts that the address names, if the traffic to them may be unencrypted.
fn plaintext_hosts(url: &str) -> impl Iterator<Item = &str> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let with_tls = match scheme {
        "redis" | "redis+cluster" | "redis+sentinel" | "amqp" | "http" => false,
        "mysql" => requires_tls(rest),
        // Empty, or a scheme that no adapter knows and `wire` refuses.
        _ => true,
    };
    let is_end = ['/', '?', '#'];
    // The adapter parses further cluster nodes up to the end of the address, whatever comes between
    // the commas.
    let nodes = if scheme == "redis+cluster" {
        rest
    } else {
        rest.split(is_end).next().unwrap_or_default()
    };
    let nodes = nodes.rsplit_once('@').map_or(nodes, |(_, nodes)| nodes).split(',');
    let hosts = nodes.map(move |node| without_port(node.split(is_end).next().unwrap_or_default()));
    hosts.filter(move |host| !with_tls && !host.is_empty())
}

/// Reads `ssl-mode` of a database address. Without it TLS is used only if the server offers it.
fn requires_tls(rest: &str) -> bool {
    let parameters = rest
        .split_once('?')
        .map_or("", |(_, query)| query)
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    let mode = parameters
        .filter(|(name, _)| *name == "ssl-mode" || *name == "sslmode")
        .map(|(_, mode)| mode.to_ascii_lowercase())
        .next_back();
    mode.is_some_and(|mode| ["required", "verify_ca", "verify_identity"].contains(&mode.as_str()))
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether the host is on the operator's own network, as far as its name tells. Names are not
/// resolved: a changing DNS answer must not change whether the service starts.
fn may_be_plain(host: &str, allowed: &[String]) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        return is_private(address);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let matches = |allowed: &String| {
        let allowed = allowed.to_ascii_lowercase();
        name == allowed || (allowed.starts_with('.') && name.ends_with(&allowed))
    };
    !name.contains('.')
        || INTERNAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        || allowed.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

    use crate::config::Config;

    fn error(pairs: &[(&str, &str)]) -> Option<String> {
        let key = format!("a:{}", BASE64.encode([7; 32]));
        let good = [("PROFILE", "production"), ("SESSION_KEYS", &key), ("TICKET_KEYS", &key)];
        let env = good.iter().chain(pairs).filter(|(_, value)| *value != "-");
        let env: Vec<_> =
            env.map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned())).collect();
        Config::load(None, env, []).err().map(|error| error.to_string())
    }

    #[track_caller]
    fn refused(name: &str, value: &str) -> String {
        let key = name.to_ascii_lowercase();
        let told = error(&[(name, value)]).unwrap_or_else(|| panic!("{name}={value} is accepted"));
        assert!(told.starts_with(&format!("{key}: ")), "{told}");
        told
    }

    #[track_caller]
    fn fine(name: &str, value: &str) {
        assert_eq!(error(&[(name, value)]), None, "{name}={value}");
    }

    #[test]
    fn production_refuses_weak_settings() {
        assert_eq!(error(&[]), None);
        let key = format!("a:{}", BASE64.encode([7; 32]));
        let alone = |pairs: &[(&str, &str)]| {
            let env = pairs
                .iter()
                .map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned()));
            Config::load(None, env.collect::<Vec<_>>(), []).unwrap_err().to_string()
        };
        assert!(alone(&[("PROFILE", "production")]).starts_with("session_keys: "));
        assert!(
            alone(&[("PROFILE", "production"), ("SESSION_KEYS", &key)])
                .starts_with("ticket_keys: ")
        );
        refused("CAPTCHA", "off");
        refused("COOKIE_SECURE", "never");
        refused("SESSION_KEYS", "a:c2hvcnQ=");
    }

    #[test]
    fn production_does_not_trust_everybody() {
        for everybody in ["0.0.0.0/0", "::/0", "10.0.0.0/8,0.0.0.0/0", "0.0.0.0/1", "2000::/3"] {
            refused("TRUSTED_PROXIES", everybody);
        }
        for own in ["10.0.0.0/8", "fc00::/7", "192.0.2.1", "104.16.0.0/13"] {
            fine("TRUSTED_PROXIES", own);
        }
    }

    #[test]
    fn production_shows_its_metrics_to_nobody_outside() {
        for public in ["203.0.113.5:9100", "[2001:db8::5]:9100"] {
            refused("ADMIN_LISTEN", public);
        }
        for private in [
            "127.0.0.1:9100",
            "10.0.0.5:9100",
            "[::1]:9100",
            "[fd00::5]:9100",
            "0.0.0.0:9100",
            "[::]:9100",
        ] {
            fine("ADMIN_LISTEN", private);
        }
    }

    #[test]
    fn the_invoke_api_is_for_this_machine_and_not_for_production() {
        refused("INVOKE_LISTEN", "127.0.0.1:9001");
        let development = |value: &str| {
            let env = vec![("FLASHSALE_INVOKE_LISTEN".to_owned(), value.to_owned())];
            Config::load(None, env, []).err().map(|error| error.to_string())
        };
        for own in ["", "127.0.0.1:0", "[::1]:9001"] {
            assert_eq!(development(own), None, "{own}");
        }
        for wrong in ["0.0.0.0:9001", "10.0.0.5:9001", "[::]:9001", "localhost:9001", "9001"] {
            assert!(
                development(wrong)
                    .unwrap()
                    .starts_with("invoke_listen: expected a loopback address"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn production_sends_nothing_in_the_clear_outside() {
        for (name, public) in [
            ("REDIS_URL", "redis://u:geheim@redis.example.com:6379"),
            ("REDIS_URL", "redis://203.0.113.5"),
            ("REDIS_URL", "redis+cluster://u:geheim@10.0.0.1:7000,203.0.113.5:7001"),
            ("REDIS_URL", "redis+cluster://u:geheim@10.0.0.1:7000/0,203.0.113.5:7001"),
            ("REDIS_URL", "redis://[2001:db8::5]:6379/0"),
            ("REDIS_URL", "redis+sentinel://u:geheim@10.0.0.1,203.0.113.5/shop"),
            ("DATABASE_URL", "mysql://u:geheim@db.example.com/shop"),
            ("DATABASE_URL", "mysql://u:geheim@db.example.com/shop?ssl-mode=PREFERRED"),
            (
                "DATABASE_URL",
                "mysql://u:geheim@db.example.com/shop?ssl-mode=REQUIRED&ssl-mode=DISABLED",
            ),
            ("AMQP_URL", "amqp://u:geheim@mq.example.com"),
            ("AMQP_URL", "amqp://u:geheim@203.0.113.5:5672/%2f"),
        ] {
            let told = refused(name, public);
            assert!(told.contains("TLS") && !told.contains("geheim"), "{told}");
        }
        for (name, private) in [
            ("REDIS_URL", "rediss://u:p@redis.example.com:6379"),
            ("REDIS_URL", "rediss+cluster://u:p@redis.example.com:6379,203.0.113.5"),
            ("REDIS_URL", "redis://redis:6379"),
            ("REDIS_URL", "redis+cluster://10.0.0.1:7000,10.0.0.2:7001"),
            ("REDIS_URL", "redis://[fd00::1]:6379"),
            ("REDIS_URL", "redis+sentinel://u:p@10.0.0.1,redis2:26380/shop"),
            ("REDIS_URL", "rediss+sentinel://u:p@redis.example.com/shop"),
            ("REDIS_URL", "redis://ip-10-0-0-1.ec2.internal."),
            ("DATABASE_URL", "mysql://u:p@db.example.com/shop?ssl-mode=VERIFY_IDENTITY"),
            ("DATABASE_URL", "mysql://u:p@192.168.1.5/shop"),
            ("AMQP_URL", "amqps://u:p@mq.example.com"),
            ("AMQP_URL", "amqp://localhost"),
            ("AMQP_URL", ""),
        ] {
            fine(name, private);
        }
        let own = ("REDIS_URL", "redis://shop.abc.cache.amazonaws.com:6379");
        refused(own.0, own.1);
        assert_eq!(error(&[own, ("PLAINTEXT_HOSTS", "shop.abc.cache.amazonaws.com")]), None);
        assert_eq!(error(&[own, ("PLAINTEXT_HOSTS", "other,.cache.amazonaws.com")]), None);
        assert!(error(&[own, ("PLAINTEXT_HOSTS", "cache.amazonaws.com")]).is_some());
    }

    #[test]
    fn traces_leave_the_own_network_with_tls_only() {
        let endpoint = |url: &str| error(&[("TRACES__ENDPOINT", url)]);
        let told = endpoint("http://collector.example.com:4318").expect("it is accepted");
        assert!(
            told.starts_with("traces.endpoint: ")
                && told.contains("TLS (https://) to collector.example.com"),
            "{told}"
        );
        for good in [
            "https://collector.example.com",
            "http://collector:4318",
            "http://10.0.0.7:4318",
            "http://127.0.0.1:4318",
        ] {
            assert_eq!(endpoint(good), None, "{good}");
        }
    }
}
