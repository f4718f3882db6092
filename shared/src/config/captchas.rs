//! How long captchas live, how many are drawn ahead, and how much work they are.

use serde::Deserialize;

use super::{
    captcha_provider::ProviderCaptchas, error::ConfigError, modes::CaptchaMode,
    ranges::check_ranges,
};
use crate::domain::ChallengeLevel;

/// `[captchas]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct Captchas {
    pub lifetime_seconds: u64,
    pub drawn_ahead_max: usize,
    pub waiting_max: usize,
    pub work: WorkCaptchas,
    pub provider: ProviderCaptchas,
}

/// `[captchas.work]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents each setting")]
pub struct WorkCaptchas {
    pub rounds: u32,
    pub attempts_max: u32,
    pub attempts_under_attack_max: u32,
}

impl WorkCaptchas {
    /// The most attempts that a proof may take.
    #[must_use]
    pub const fn attempts_max(&self, level: ChallengeLevel) -> u32 {
        match level {
            ChallengeLevel::Normal => self.attempts_max,
            ChallengeLevel::UnderAttack => self.attempts_under_attack_max,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let (normal, attack) =
            (u64::from(self.attempts_max), u64::from(self.attempts_under_attack_max));
        check_ranges(
            "captchas.work",
            [
                ("rounds", self.rounds.into(), 100, 100_000),
                ("attempts_max", normal, 1, 1_000_000),
                // The switch never makes proofs easier.
                ("attempts_under_attack_max", attack, normal, 1_000_000),
            ],
        )
    }
}

impl Captchas {
    /// The lifetime in milliseconds.
    #[must_use]
    pub const fn ms(&self) -> u64 {
        self.lifetime_seconds.saturating_mul(1_000)
    }

    pub(super) fn validate(&self, mode: CaptchaMode) -> Result<(), ConfigError> {
        check_ranges(
            "captchas",
            [
                ("lifetime_seconds", self.lifetime_seconds, 10, 3_600),
                ("drawn_ahead_max", self.drawn_ahead_max as u64, 0, 10_000),
                ("waiting_max", self.waiting_max as u64, 1, 10_000),
            ],
        )?;
        self.work.validate()?;
        self.provider.validate(mode == CaptchaMode::Provider)
    }
}
