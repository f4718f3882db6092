//! Traces: whether they are exported, and how the gateway names its requests in them.
//! `flashsale::trace` makes the spans; with the feature `otlp` this module sends them.

#[cfg(feature = "otlp")]
mod otlp;

use flashsale::{config::Config, logging};

/// Variables from which other programs take a collector's address.
const OTEL_ENDPOINTS: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The sender of spans, to close before the process ends.
#[derive(Default)]
pub struct Traces {
    #[cfg(feature = "otlp")]
    sender: Option<otlp::Sender>,
}

/// Refuses an endpoint to which this binary can't send.
pub fn check(config: &Config) -> anyhow::Result<()> {
    check_built(config, cfg!(feature = "otlp"))
}

fn check_built(config: &Config, with_traces: bool) -> anyhow::Result<()> {
    if !with_traces && !config.traces.endpoint.is_empty() {
        anyhow::bail!(
            "traces.endpoint: this binary was built without traces: build it with --features local-emulator/otlp, or take that of \
             the image, the RPM or the tarball"
        );
    }
    Ok(())
}

/// Starts logging, and exporting if that is configured.
pub fn start(config: &Config) -> anyhow::Result<Traces> {
    check(config)?;
    #[cfg(feature = "otlp")]
    if !config.traces.endpoint.is_empty() {
        let (layer, sender) = otlp::start(config)?;
        logging::start_with(config, Some(layer))?;
        return Ok(Traces { sender: Some(sender) });
    }
    logging::start(config)?;
    if let Some(name) = OTEL_ENDPOINTS.into_iter().find(|name| std::env::var_os(name).is_some()) {
        tracing::warn!(
            "{name} is not read: set traces.endpoint (FLASHSALE_TRACES__ENDPOINT) to export traces"
        );
    }
    Ok(Traces::default())
}

impl Traces {
    /// Sends the remaining spans, within about a second.
    pub async fn close(self) {
        #[cfg(feature = "otlp")]
        if let Some(sender) = self.sender {
            sender.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_without_traces_refuses_an_endpoint() {
        let to = |endpoint: &str| {
            Config::load(None, [("FLASHSALE_TRACES__ENDPOINT".to_owned(), endpoint.to_owned())], [])
                .unwrap()
        };
        let told = check_built(&to("http://127.0.0.1:4318"), false).unwrap_err().to_string();
        assert!(
            told.starts_with("traces.endpoint: this binary was built without traces"),
            "{told}"
        );
        check_built(&to(""), false).unwrap();
        check_built(&to("http://127.0.0.1:4318"), true).unwrap();
    }
}
