//! An axum server that runs one script in Redis for every request, over one multiplexed connection. The script is about
//! the size of an admission: it reads a sale's fields, compares, and sets one key with an expiry.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use redis::{Script, aio::MultiplexedConnection};
use tokio::net::TcpListener;

const SCRIPT: &str = r"
-- KEYS[1] sale   KEYS[2] held   KEYS[3] the request's own key
-- ARGV[1] user id   ARGV[2] now, ms   ARGV[3] life of the key, ms
local sale = redis.call('HMGET', KEYS[1], 'state', 'starts_at', 'ends_at', 'stock', 'u:' .. ARGV[1])
if sale[1] ~= 'open' then return {'closed'} end
local now = tonumber(ARGV[2])
if now < tonumber(sale[2]) then return {'not-open', sale[2]} end
if now >= tonumber(sale[3]) then return {'sale-ended'} end
if sale[5] then return {'already-bought', sale[5]} end
if redis.call('HLEN', KEYS[2]) >= tonumber(sale[4]) then return {'sold-out'} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
return {'admitted', ARGV[1]}
";
/// As many keys as a sale has shoppers, so that Redis does not only touch one.
const USERS: u64 = 100_000;

struct Shared {
    redis: MultiplexedConnection,
    script: Script,
    requests: AtomicU64,
}

pub async fn serve(address: &str, redis: &str) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    let sale =
        [("state", "open"), ("starts_at", "0"), ("ends_at", "9999999999999"), ("stock", "1")];
    redis::cmd("HSET").arg("{baseline}sale").arg(&sale).exec_async(&mut connection).await?;
    let shared = Arc::new(Shared {
        redis: connection,
        script: Script::new(SCRIPT),
        requests: AtomicU64::new(0),
    });
    let router = Router::new().fallback(any(admit)).with_state(shared);
    let listener = TcpListener::bind(address).await?;
    crate::say(&format!("listening on http://{}", listener.local_addr()?))?;
    Ok(axum::serve(listener, router).await?)
}

async fn admit(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let user = shared.requests.fetch_add(1, Ordering::Relaxed) % USERS;
    let mut redis = shared.redis.clone();
    let answer: redis::RedisResult<Vec<String>> = shared
        .script
        .key("{baseline}sale")
        .key("{baseline}held")
        .key(format!("{{baseline}}{user}"))
        .arg(format!("01a00000-0000-7000-8000-{user:012}"))
        .arg(1_900_000_000_000_u64)
        .arg(60_000)
        .invoke_async(&mut redis)
        .await;
    match answer {
        Ok(words) if words.first().is_some_and(|word| word == "admitted") => {
            (StatusCode::CREATED, words.join(" "))
        }
        Ok(words) => (StatusCode::CONFLICT, words.join(" ")),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
