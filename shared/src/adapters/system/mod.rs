//! The machine's own clock, randomness and drawing: the only place that reads them.

mod artist;
mod clock;
mod random;

pub use artist::Artist;
pub use clock::SystemClock;
pub use random::SystemRandom;
