//! The machine's own clock, random numbers and drawing: the only module that reads them.

mod artist;
mod clock;
mod random;

pub use artist::Artist;
pub use clock::SystemClock;
pub use random::SystemRandom;
