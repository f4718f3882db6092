//! What Redis's errors mean to a caller, and to the connection they came on.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::ports::StoreError;

/// This store's name in errors.
pub(super) const STORE: &str = "Redis";

/// A broken connection is replaced once it is this old. The minimum age prevents a tight loop of
/// connects to a server that accepts and then hangs up.
const BROKEN_AGE: Duration = Duration::from_millis(200);
/// A connection whose server refuses commands is replaced once it is this old: the same name may by
/// now lead to another server, which accepts writes.
const REFUSED_AGE: Duration = Duration::from_secs(1);

/// Error codes of a server that can't serve at the moment; the command had no effect.
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
/// Those codes that another server behind the same name might not return.
const WRONG_SERVER: [&str; 5] = ["CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "READONLY"];

/// The code of the server's error. Redis 6 wraps the error of a command that a script called: `ERR
/// Error running script (call to f_…): @user_script:15: @user_script: 15: -READONLY You can't write
/// …`.
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
        // The server refused the command with a code that the library does not know.
        | ErrorKind::Extension => StoreError::Unavailable { store: STORE, cause },
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::Server(_) => StoreError::Corrupt { store: STORE, cause },
        _ if error.is_connection_refusal() => StoreError::Unavailable { store: STORE, cause },
        _ => StoreError::Unknown { store: STORE, cause },
    }
}

/// The age from which a connection is to be replaced after this error; `None` when it is still
/// usable.
///
/// A timeout counts too: its command was sent two seconds ago, and answers come in the order of the
/// commands, so no command sent since has been answered either. Replacing it costs one connection
/// in two seconds.
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
