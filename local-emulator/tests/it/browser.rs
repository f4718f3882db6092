//! The pages in a real browser: `tests/python/shopping.py` acts as the shoppers, `drawing.py` as
//! those of sales by draw and `operating.py` as the operator, each against its own emulator.

use std::{env, path::Path, process::Command};

use flashsale::testing::FakeProvider;

use crate::emulator::{Emulator, Place};

/// Chromium's error for every request in progress when a network interface of the machine is added
/// or removed, as containers do. It is unrelated to the page.
const INTERRUPTED: &str = "ERR_NETWORK_CHANGED";
const PLAYS_MAX: u32 = 5;

/// Runs one of the scenarios on its own emulator; runs it again, on a new one, if the machine's
/// network changed.
#[track_caller]
fn play(place: impl Fn() -> Place, script: &str, scenario: &str) {
    for _ in 0..PLAYS_MAX {
        match play_once(&place(), script, scenario) {
            Ok(()) => return,
            Err(said) if said.contains(INTERRUPTED) => {}
            Err(said) => panic!("{scenario}: {said}"),
        }
    }
    panic!("{scenario}: the machine's network changed in each of {PLAYS_MAX} plays");
}

/// Runs a scenario once. The books are checked when `place` is dropped.
fn play_once(place: &Place, script: &str, scenario: &str) -> Result<(), String> {
    let emulator = place.start(&["--demo", "--invoke-listen", "127.0.0.1:0"]);
    let (phone, password) = demo_admin(&emulator);
    let python = env::var("TEST_PYTHON").expect(
        "TEST_PYTHON names a Python with infra/requirements.txt installed: infra/test sets it",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = Command::new(python)
        .arg(script)
        .arg(scenario)
        .env("SHOP_BASE", &emulator.client.base)
        .env("SHOP_INVOKE_BASE", &emulator.invoker().base)
        .env("SHOP_ADMIN_PHONE", phone)
        .env("SHOP_ADMIN_PASSWORD", password)
        .env("SHOP_LOG", place.log_file().unwrap_or(Path::new("")))
        // No cache files are left among the sources.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .join("\n");
    emulator.stop();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// The administrator that `--demo` makes: number and password.
fn demo_admin(emulator: &Emulator) -> (String, String) {
    let line = emulator
        .said
        .iter()
        .find_map(|line| line.strip_prefix("demo admin "))
        .expect("--demo makes an administrator");
    let (phone, password) = line.split_once(" password ").expect("number and password in one line");
    (phone.trim().to_owned(), password.to_owned())
}

macro_rules! scenarios {
    ($script:literal: $($name:ident: $place:expr;)*) => {$(
        #[test]
        #[ignore = "needs Chromium and Python packages: infra/test runs it"]
        fn $name() {
            play(|| $place, $script, stringify!($name));
        }
    )*};
}

scenarios! {
    "shopping.py":
    purchase: Place::embedded();
    twice: Place::embedded();
    back: Place::embedded();
    next_stays_here: Place::embedded();
    sold_out: Place::embedded();
    keyboard: Place::embedded();
    chinese: Place::embedded();
    trouble: Place::embedded();
    unpaid: Place::embedded().set("ORDERS__PAY_WITHIN_SECONDS", "6");
    captcha: Place::embedded().with_captchas();
    codes: Place::embedded().set("PHONE_VERIFICATION", "log").with_log("warn");
    codes_for_captchas: Place::embedded().with_captchas().set("PHONE_VERIFICATION", "log");
    work: Place::embedded().with_captchas_of("work").set("CAPTCHAS__WORK__ATTEMPTS_UNDER_ATTACK_MAX", "1500");
    widget: Place::embedded().with_captchas_of("work");
    provider: Place::embedded().with_captcha_provider(&FakeProvider::start());
    accessible: Place::embedded();
}

scenarios! {
    "drawing.py":
    wins: Place::embedded();
    not_this_time: Place::embedded();
    passes: Place::embedded();
    opens: Place::embedded();
    interrupted: Place::embedded();
    chinese_draw: Place::embedded();
    draw_captcha: Place::embedded().with_captchas();
}

scenarios! {
    "operating.py":
    units_move: Place::embedded();
    steer: Place::embedded();
    limits: Place::embedded();
    draws: Place::embedded();
    parked: Place::embedded();
    under_attack: Place::embedded();
    bans: Place::embedded();
    orders: Place::embedded();
    only_for_operators: Place::embedded();
    console_accessible: Place::embedded();
}
