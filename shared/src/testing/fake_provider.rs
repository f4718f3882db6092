//! A captcha provider of our own, for tests: it answers siteverify as Turnstile does, serves a
//! script that stands for a provider's widget, and fails as a test asks.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// The host on whose pages the provider's tokens were made.
pub const PROVIDER_HOSTNAME: &str = "shop.example";
/// The secret that the provider knows.
pub const PROVIDER_SECRET: &str = "the provider's secret";

/// A widget with one button. It has the functions of Turnstile's that our page uses.
const SCRIPT: &str = r#"
globalThis.turnstile = {
  render(place, { action, cData, callback }) {
    const button = document.createElement("button");
    button.type = "button";
    button.id = "fake-widget";
    button.textContent = "I am a person";
    button.addEventListener("click", () => callback(`good/${action}/${cData}/${Math.random()}`));
    place.append(button);
    return "1";
  },
  remove() {},
};
"#;

/// How the provider answers.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// As it should.
    Right,
    /// As it should, after this many milliseconds.
    Slow(u64),
    /// With a status and no JSON.
    Status(u16),
    /// With this, whatever the token.
    Always(Value),
}

/// The provider. It runs on a thread of its own until the process ends.
#[derive(Debug, Clone)]
pub struct FakeProvider {
    /// Its address, without a path.
    pub base: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    used: HashSet<String>,
    forms: Vec<Vec<(String, String)>>,
}

impl FakeProvider {
    /// Starts one on a free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = listener.expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let base = format!("http://{}", listener.local_addr().expect("it is bound"));
        let behaviour = Behaviour::Right;
        let shared = Shared { behaviour, used: HashSet::new(), forms: Vec::new() };
        let provider = Self { base, shared: Arc::new(Mutex::new(shared)) };
        let script = ([(header::CONTENT_TYPE, "text/javascript")], SCRIPT);
        let router = Router::new()
            .route("/siteverify", post(siteverify))
            .route("/api.js", get(move || async move { script }))
            .with_state(provider.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener);
                let listener = listener.expect("the runtime takes the listener");
                axum::serve(listener, router).await.expect("it serves until the process ends");
            });
        });
        provider
    }

    /// How it answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared().behaviour = behaviour;
    }

    /// The forms that were sent to it, as names and values.
    #[must_use]
    pub fn forms(&self) -> Vec<Vec<(String, String)>> {
        self.shared().forms.clone()
    }

    /// A token that its widget would have made.
    #[must_use]
    pub fn token(action: &str, captcha_id: &str) -> String {
        format!("good/{action}/{captcha_id}/{}", super::order_id())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, form: &[(String, String)]) -> Value {
        let value = |wanted: &str| {
            let found = form.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| value.as_str())
        };
        let refused = |code: &str| json!({ "success": false, "error-codes": [code] });
        if value("secret") != PROVIDER_SECRET {
            return refused("invalid-input-secret");
        }
        let token = value("response");
        if token.is_empty() {
            return refused("missing-input-response");
        }
        let ["good", action, cdata, _] = token.split('/').collect::<Vec<_>>()[..] else {
            return refused("invalid-input-response");
        };
        if !self.shared().used.insert(token.to_owned()) {
            return refused("timeout-or-duplicate");
        }
        json!({
            "success": true,
            "challenge_ts": "2026-11-22T16:55:10.839Z",
            "hostname": PROVIDER_HOSTNAME,
            "error-codes": [],
            "action": action,
            "cdata": cdata,
            "metadata": { "interactive": false },
        })
    }
}

async fn siteverify(State(provider): State<FakeProvider>, body: String) -> Response {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    let form: Vec<_> = pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
    provider.shared().forms.push(form.clone());
    let behaviour = provider.shared().behaviour.clone();
    match behaviour {
        Behaviour::Right => Json(provider.answer(&form)).into_response(),
        Behaviour::Slow(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Json(provider.answer(&form)).into_response()
        }
        Behaviour::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, "<html>Sorry</html>").into_response()
        }
        Behaviour::Always(answer) => Json(answer).into_response(),
    }
}
