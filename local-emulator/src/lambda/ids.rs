//! Ids as Lambda makes them.

use flashsale::{domain::Timestamp, ports::Random};

/// A request id: a random UUID.
pub fn new_id(random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// A new X-Ray trace: the time in seconds and 96 random bits, not sampled.
pub fn new_trace_id(random: &dyn Random, now: Timestamp) -> String {
    let seconds = now.epoch_ms() / 1_000;
    let mut bytes = [0; 24];
    random.fill(&mut bytes);
    let [a, b, parent] =
        [0, 8, 16].map(|at| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte])));
    format!("Root=1-{seconds:08x}-{:08x}{b:016x};Parent={parent:016x};Sampled=0", a as u32)
}
