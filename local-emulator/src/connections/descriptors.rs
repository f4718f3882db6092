//! How many connections this process's limit of open descriptors allows.

use flashsale::config::{Config, HostMode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections of each listener other than the public one. Their limit is separate, so that a full
/// public port does not block health checks and metrics.
pub const ASIDE_MAX: usize = 32;
/// Descriptors reserved for stores and their servers, listeners, logs and pipes.
const DESCRIPTORS_RESERVED: u64 = 64 + 2 * ASIDE_MAX as u64;
/// Descriptors of one function process: its listener and its pipes. The connections that it makes
/// are not included.
const DESCRIPTORS_OF_AN_INSTANCE: u64 = 8;
/// The lower bound of connections, however few descriptors there are.
const CONNECTIONS_MIN: u64 = 16;

/// Raises the soft limit of open descriptors to the hard one, and returns the resulting limit.
pub fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays at {}", current.unwrap_or(u64::MAX));
            current.unwrap_or(u64::MAX)
        }
    }
}

/// How many connections the configuration and the descriptors allow.
pub fn connections_max(config: &Config, descriptors: u64) -> usize {
    let instances = |name: &str| {
        let settings = config.function(name);
        u64::from(settings.instances_max + 1)
            * (u64::from(settings.concurrency) + DESCRIPTORS_OF_AN_INSTANCE)
    };
    let functions: u64 = match config.host {
        HostMode::InProcess => 0,
        HostMode::Processes => config.function_names().map(instances).sum(),
    };
    let left = descriptors.saturating_sub(DESCRIPTORS_RESERVED + functions).max(CONNECTIONS_MIN);
    let wanted = config.gateway.connections_max;
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
    if most < wanted {
        tracing::warn!(
            "at most {most} connections, not {wanted}: this process may open {descriptors} files (ulimit -n)"
        );
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        let config = Config::defaults();
        assert_eq!(connections_max(&config, 1_024), 896);
        assert_eq!(connections_max(&config, u64::MAX), config.gateway.connections_max);
        assert_eq!(connections_max(&config, 10), 16);
    }
}
