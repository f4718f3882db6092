//! What Redis's errors mean: to a caller, and to the connection they came on.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::ports::StoreError;

/// The store's name in errors.
pub(super) const STORE: &str = "Redis";

/// A connection that broke is replaced once it is this old, so that a server that accepts and then hangs up is not
/// connected to in a tight loop.
const BROKEN_AGE: Duration = Duration::from_millis(200);
/// A connection whose server refuses is replaced once it is this old: behind the same name there may be another server by
/// now, which takes writes.
const REFUSED_AGE: Duration = Duration::from_secs(1);

/// Codes of a server that is not able to serve now; the command had no effect.
const NOT_NOW: [&str; 10] = [
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];
/// Those of them that another server behind the same name may not answer.
const WRONG_SERVER: [&str; 5] = ["CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "READONLY"];

/// The code of the server's error. Redis 6 wraps the error of a command that a script called:
/// `ERR Error running script (call to f_…): @user_script:15: @user_script: 15: -READONLY You can't write …`.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    if code != "ERR" {
        return Some(code);
    }
    let words = error.detail()?.strip_prefix("Error running script")?.split_whitespace();
    words.map(|word| word.trim_start_matches('-')).find(|word| NOT_NOW.contains(word))
}

/// What an error means to a caller.
pub(super) fn stored(error: &RedisError) -> StoreError {
    let cause = error.to_string();
    if code(error).is_some_and(|code| NOT_NOW.contains(&code)) {
        return StoreError::Unavailable { store: STORE, cause };
    }
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask)
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        // A code that the library does not know: the server refused the command.
        | ErrorKind::Extension => StoreError::Unavailable { store: STORE, cause },
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::Server(_) => StoreError::Corrupt { store: STORE, cause },
        _ if error.is_connection_refusal() => StoreError::Unavailable { store: STORE, cause },
        _ => StoreError::Unknown { store: STORE, cause },
    }
}

/// From which age on a connection is to be replaced after the error; `None` when it is as good as any.
///
/// Also a time-out: its command was sent two seconds ago on this connection, and answers come in the order of their
/// commands, so none of those that were sent since has been answered. Replacing it costs one connection in two seconds.
pub(super) fn replaced_from(error: &RedisError) -> Option<Duration> {
    if error.is_io_error() || error.is_unrecoverable_error() {
        return Some(BROKEN_AGE);
    }
    code(error).filter(|code| WRONG_SERVER.contains(code)).map(|_| REFUSED_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
            .unwrap()
            .extract_error()
            .unwrap_err()
    }

    #[test]
    fn refusals_within_scripts_are_read_from_redis_6_and_7() {
        let wrapped = "ERR Error running script (call to f_2067d915024a3e1657c4169c84f809f8ebaff1ed): @user_script:15: @user_script: 15: ";
        let on = " script: 2067d915024a3e1657c4169c84f809f8ebaff1ed, on @user_script:15.";
        for (refusal, replaced) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", None),
            ("READONLY You can't write against a read only replica.", Some(REFUSED_AGE)),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
                None,
            ),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                Some(REFUSED_AGE),
            ),
            ("NOREPLICAS Not enough good replicas to write.", None),
        ] {
            for line in [
                refusal.to_owned(),
                format!("{wrapped}-{refusal}"),
                format!("{wrapped}{refusal}"),
                format!("{refusal}{on}"),
            ] {
                let error = said(&line);
                assert!(
                    matches!(stored(&error), StoreError::Unavailable { .. }),
                    "{line}: {:?}",
                    stored(&error)
                );
                assert_eq!(replaced_from(&error), replaced, "{line}");
            }
        }
    }

    #[test]
    fn a_script_that_is_wrong_is_corrupt() {
        for line in [
            "ERR Error running script (call to f_20): @user_script:1: @user_script: 1: WRONGTYPE Operation against a key",
            "ERR Error compiling script (new function): user_script:1: '=' expected near 'OOM'",
            "ERR unknown command 'READONLY'",
        ] {
            let error = said(line);
            assert!(
                matches!(stored(&error), StoreError::Corrupt { .. }),
                "{line}: {:?}",
                stored(&error)
            );
            assert_eq!(replaced_from(&error), None, "{line}");
        }
    }
}
