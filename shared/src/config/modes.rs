//! Settings with a few named values.

use serde::Deserialize;

/// How strictly settings are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For a laptop: missing keys are created.
    Development,
    /// Weak settings are refused.
    Production,
}

/// Which servers hold the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServersMode {
    /// SQLite and memory.
    Embedded,
    /// Private servers, started by the emulator.
    Local,
    /// The configured addresses.
    External,
}

/// How the emulator runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostMode {
    /// Inside the emulator's own process.
    InProcess,
    /// As processes of their own, over the Lambda Runtime API.
    Processes,
}

/// Which captchas are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptchaMode {
    /// Drawn and spoken.
    Image,
    /// A proof of work.
    Work,
    /// A provider's widget.
    Provider,
    /// Never.
    Off,
}

impl CaptchaMode {
    /// The setting's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Work => "work",
            Self::Provider => "provider",
            Self::Off => "off",
        }
    }
}

/// How phone numbers are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhoneVerification {
    /// Not at all.
    Off,
    /// By codes that are written to the log.
    Log,
    /// By codes that the operator's gateway sends.
    Webhook,
}

/// Whether the session cookie is `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CookieSecure {
    /// Unless the page was opened on a loopback name.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
