//! The operating system's random numbers.

use ring::rand::{SecureRandom as _, SystemRandom as Os};

use crate::ports::Random;

/// The operating system's generator.
#[derive(Debug, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        Os::new()
            .fill(bytes)
            .expect("the kernel's generator does not fail once the machine has started");
    }
}
