use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::*;
use crate::domain::Quota;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn error(pairs: &[(&str, &str)]) -> String {
    Config::load(None, env(pairs), []).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_valid() {
    let config = Config::load(None, [], []).unwrap();
    assert_eq!(config.limits.ticket, Quota::per(10, 10_000));
    assert_eq!(config.limits.order_status, Quota::per(20, 1_000));
    assert_eq!(config.limits.address, Quota { limit: 500, window_ms: 1_000, burst: 1_000 });
}

#[test]
fn flags_win_over_variables() {
    let config = Config::load(
        None,
        env(&[("FLASHSALE_LISTEN", "0.0.0.0:1")]),
        [("listen", "0.0.0.0:2".to_owned())],
    )
    .unwrap();
    assert_eq!(config.listen, "0.0.0.0:2");
    let config =
        Config::load(None, env(&[("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS", "7")]), []).unwrap();
    assert_eq!(config.orders.pay_within_seconds, 7);
}

#[test]
fn a_bad_value_is_named_by_its_key() {
    assert!(
        error(&[("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS", "soon")])
            .starts_with("FLASHSALE_ORDERS__PAY_WITHIN_SECONDS: expected a whole")
    );
    assert!(error(&[("FLASHSALE_ORDRES", "1")]).starts_with("FLASHSALE_ORDRES: no such setting"));
    assert!(error(&[("FLASHSALE_LISTEN", "here")]).starts_with("listen: expected"));
    assert!(error(&[("FLASHSALE_TRUSTED_PROXIES", "10.0.0.0/33")]).contains("10.0.0.0/33"));
    assert!(error(&[("FLASHSALE_ADMIN_NETWORKS", "10.0.0.0/8,office")]).contains("office"));
    assert!(
        error(&[("FLASHSALE_SESSIONS__ADMIN_LIFETIME_SECONDS", "1")])
            .starts_with("sessions.admin_lifetime_seconds")
    );
    assert!(error(&[("FLASHSALE_SERVERS", "external")]).starts_with("--redis-url: needed"));
    assert!(error(&[("FLASHSALE_CAPTCHA", "no")]).contains("captcha"));
    assert!(error(&[("FLASHSALE_LIMITS__TICKET__LIMIT", "0")]).starts_with("limits.ticket"));
    let times = error(&[("FLASHSALE_LIMITS__NETWORK_TIMES", "0")]);
    assert!(times.starts_with("limits.network_times"), "{times}");
    let refusals = error(&[("FLASHSALE_ABUSE__ADDRESS_REFUSALS_MAX", "1000001")]);
    assert!(refusals.starts_with("abuse.address_refusals_max"), "{refusals}");
    let too_soon = [("FLASHSALE_SWEEPER__REBUILD_WAIT_MIN_MS", "8000")];
    assert!(
        error(&too_soon).starts_with("sweeper.rebuild_wait_min_ms: expected 8001 to"),
        "a publish may take longer"
    );
    let waits_longer = [("FLASHSALE_ORDERS__PUBLISH_WAIT_MS", "3000")];
    assert!(error(&waits_longer).starts_with("sweeper.rebuild_wait_min_ms: expected 9001 to"));
}

#[test]
fn functions_have_settings_of_their_own() {
    let config = Config::load(
        None,
        env(&[
            ("FLASHSALE_FUNCTION_DEFAULTS__CONCURRENCY", "7"),
            ("FLASHSALE_FUNCTION_DEFAULTS__INSTANCES_MAX", "3"),
            ("FLASHSALE_FUNCTIONS__ORDER_WORKER__TIMEOUT_MS", "4321"),
            ("FLASHSALE_FUNCTIONS__ORDER_STATUS__TIMEOUT_MS", "99"),
            ("FLASHSALE_FUNCTIONS__HELLO__COMMAND", "python3,-m,awslambdaric,hello.handler"),
            ("FLASHSALE_FUNCTIONS__HELLO__ENVIRONMENT", "A=1,B=2=3"),
        ]),
        [],
    )
    .unwrap();
    assert_eq!(
        (config.function("seckill").concurrency, config.function("seckill").instances_max),
        (7, 3)
    );
    let worker = config.function("order-worker");
    assert_eq!(
        (worker.timeout_ms, worker.concurrency),
        (4_321, 1),
        "its own default concurrency stays"
    );
    assert_eq!(config.function("order-status").timeout_ms, 99);
    assert_eq!(config.function_names().filter(|name| name.starts_with("order")).count(), 2);
    let hello = config.function("hello");
    assert_eq!(hello.concurrency, 1, "many runtime clients start one process per concurrent call");
    assert_eq!(hello.command, ["python3", "-m", "awslambdaric", "hello.handler"]);
    assert_eq!(hello.variables().collect::<Vec<_>>(), [("A", "1"), ("B", "2=3")]);
    assert!(config.function_names().any(|name| name == "hello"));
    assert!(!config.shown().contains("2=3"), "an environment may hold secrets");

    assert!(
        error(&[("FLASHSALE_FUNCTIONS__SECKILL__COLOUR", "1")])
            .starts_with("FLASHSALE_FUNCTIONS__SECKILL__COLOUR: no such")
    );
    assert!(
        error(&[("FLASHSALE_FUNCTIONS__SECKILL__CONCURRENCY", "0")])
            .starts_with("functions.seckill.concurrency: expected 1")
    );
    assert!(
        error(&[("FLASHSALE_FUNCTIONS__SALES__INSTANCES_MIN", "9")])
            .starts_with("functions.sales.instances_min: expected 0 to 2")
    );
    assert!(
        error(&[("FLASHSALE_FUNCTIONS__SEKILL__TIMEOUT_MS", "9")])
            .starts_with("functions.sekill.command: needed")
    );
    assert!(
        error(&[("FLASHSALE_FUNCTIONS__SALES__ENVIRONMENT", "AWS_LAMBDA_RUNTIME_API=x")])
            .starts_with("functions.sales.environment")
    );
    assert!(
        error(&[("FLASHSALE_FUNCTION_DEFAULTS__ENVIRONMENT", "A")])
            .starts_with("function_defaults.environment: expected")
    );
    assert!(
        error(&[("FLASHSALE_FUNCTIONS__SALES__ROUTES", "/hello")])
            .starts_with("functions.sales.routes: the routes of")
    );
    assert!(
        error(&[("FLASHSALE_HOST", "processes")])
            .starts_with("--host: \"processes\" needs --servers")
    );
}

#[test]
fn the_virtual_host_is_read_from_the_address() {
    for (url, expected) in [
        ("amqp://u:p@h:5672", "/"),
        ("amqp://u:p@h:5672/", "/"),
        ("amqp://u:p@h:5672/%2f", "/"),
        ("amqps://h/shop?heartbeat=5", "shop"),
        ("", "/"),
    ] {
        let config = Config::load(None, env(&[("FLASHSALE_AMQP_URL", url)]), []).unwrap();
        assert_eq!(config.amqp_vhost(), expected, "{url}");
    }
}

#[test]
fn a_file_may_name_new_functions_but_no_new_settings() {
    let dir = std::env::temp_dir();
    let load = |text: &str| {
        let path = dir.join(format!("flashsale-config-{}-{}.toml", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let loaded = Config::load(path.to_str(), [], []);
        std::fs::remove_file(path).unwrap();
        loaded
    };
    let config =
        load("[functions.hello]\ncommand = [\"./hello\"]\n[functions.sweeper]\nmemory_mb = 100\n")
            .unwrap();
    assert_eq!(config.function("hello").command, ["./hello"]);
    assert_eq!(
        (config.function("sweeper").memory_mb, config.function("sweeper").instances_max),
        (100, 1)
    );
    assert!(
        load("[functions.hello]\ncolour = 1\n")
            .unwrap_err()
            .to_string()
            .starts_with("functions.hello.colour: no such")
    );
    assert!(
        load("[functions.hello]\nmemory_mb = \"x\"\n")
            .unwrap_err()
            .to_string()
            .starts_with("functions.hello.memory_mb: expected a whole")
    );
    assert!(load("[functions]\nhello = 1\n").is_err());
}

#[test]
fn a_function_process_gets_the_same_configuration() {
    let key = format!("a:{}", BASE64.encode([7; 32]));
    let given = [
        ("FLASHSALE_SESSION_KEYS", key.as_str()),
        ("FLASHSALE_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1"),
        ("FLASHSALE_LIMITS__TICKET__LIMIT", "77"),
        ("FLASHSALE_LISTEN", "0.0.0.0:1"),
        ("FLASHSALE_FUNCTIONS__SECKILL__CONCURRENCY", "3"),
    ];
    let mut config = Config::load(None, env(&given), []).unwrap();
    config.use_servers(
        "redis://r:1".to_owned(),
        "mysql://u:p@m:2/d".to_owned(),
        "amqp://u:p@q:3".to_owned(),
    );
    let variables = config.environment_for_functions();
    assert_eq!(variables.len(), 7, "only what differs: {variables:?}");
    let there = Config::load(None, variables, []).unwrap();
    assert_eq!(there.session_keys().unwrap()[0].secret, [7; 32]);
    assert_eq!((there.limits.ticket.limit, there.trusted_proxies.len()), (77, 2));
    assert_eq!(there.servers, ServersMode::External);
    assert_eq!(there.database_url.expose_secret(), "mysql://u:p@m:2/d");
    assert_eq!(
        (there.listen.as_str(), there.function("seckill").concurrency),
        ("127.0.0.1:8080", 32)
    );
}

#[test]
fn secrets_are_masked() {
    let key = format!("a:{}", BASE64.encode([7; 32]));
    let config = Config::load(
        None,
        env(&[("FLASHSALE_REDIS_URL", "redis://u:geheim@h:1"), ("FLASHSALE_SESSION_KEYS", &key)]),
        [],
    )
    .unwrap();
    let shown = format!("{}{config:?}", config.shown());
    assert!(!shown.contains("geheim") && !shown.contains(&key), "{shown}");
    assert!(config.shown().contains("redis://***@h:1"));
}
