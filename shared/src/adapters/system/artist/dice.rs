//! Random numbers for drawing and mixing, from the operating system in blocks.

use crate::adapters::system::SystemRandom;
use crate::ports::Random as _;

/// A source of random numbers.
pub(super) struct Dice {
    block: [u8; 512],
    used: usize,
}

impl Dice {
    pub(super) const fn new() -> Self {
        Self { block: [0; 512], used: 512 }
    }

    /// A number from `from` up to `to`.
    pub(super) fn between(&mut self, from: f32, to: f32) -> f32 {
        if self.used + 4 > self.block.len() {
            SystemRandom.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.block[self.used..self.used + 4]);
        self.used += 4;
        // 24 bits, because an f32 has no more.
        let share = (u32::from_le_bytes(bytes) >> 8) as f32 / 16_777_216.0;
        from + (to - from) * share
    }

    /// A number from 0 up to `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.between(0.0, count as f32) as usize).min(count - 1)
    }

    /// An angle of a full turn, in radians.
    pub(super) fn turn(&mut self) -> f32 {
        self.between(0.0, std::f32::consts::TAU)
    }
}
