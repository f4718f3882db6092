//! What errors of the server and of the library mean.

use sqlx::{Error, mysql::MySqlDatabaseError};

use super::STORE;
use crate::{adapters::sql::Failure, ports::StoreError};

mod code {
    pub(super) const DUPLICATE_ENTRY: u16 = 1062;
    pub(super) const RECORD_CHANGED: u16 = 1020;
    pub(super) const LOCK_WAIT_TIMEOUT: u16 = 1205;
    pub(super) const DEADLOCK: u16 = 1213;
    pub(super) const SERVER_SHUTDOWN: u16 = 1053;
    pub(super) const QUERY_INTERRUPTED: u16 = 1317;
    pub(super) const READ_ONLY_OPTION: u16 = 1290;
    pub(super) const READ_ONLY_MODE: u16 = 1836;
    pub(super) const CONNECTION_KILLED: u16 = 1927;
    /// MySQL's two errors for a character that the column can't store. Both have the state HY000
    /// and name no column; the message of the first repeats the value.
    pub(super) const CANNOT_CONVERT_STRING: u16 = 3854;
    pub(super) const IMPOSSIBLE_CONVERSION: u16 = 3988;
}

fn database(error: &Error) -> Option<&MySqlDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// How many attempts this failure allows in all. More than one when the work lost against another
/// transaction.
pub(super) fn attempts_max(failure: &Failure) -> u32 {
    let Failure::Sql(error) = failure else { return 1 };
    match database(error).map(MySqlDatabaseError::number) {
        Some(code::DEADLOCK | code::LOCK_WAIT_TIMEOUT | code::RECORD_CHANGED) => 10,
        // Another transaction inserted the row after this one had looked for it. If that repeats,
        // it is a bug of ours.
        Some(code::DUPLICATE_ENTRY) => 3,
        _ => 1,
    }
}

/// Whether the server gave up waiting for a row or a table that another transaction uses.
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    database(error).is_some_and(|error| error.number() == code::LOCK_WAIT_TIMEOUT)
}

/// Whether the connection must not be used again: it is broken, or its server became read-only and
/// a new connection may reach another server.
pub(super) fn ends_connection(error: &Error) -> bool {
    match database(error) {
        Some(error) => matches!(
            error.number(),
            code::SERVER_SHUTDOWN
                | code::QUERY_INTERRUPTED
                | code::READ_ONLY_OPTION
                | code::READ_ONLY_MODE
                | code::CONNECTION_KILLED
        ),
        None => !matches!(
            error,
            Error::ColumnDecode { .. }
                | Error::Decode(_)
                | Error::ColumnNotFound(_)
                | Error::Encode(_)
        ),
    }
}

/// A failure before the commit: everything is rolled back, by the server if not by us.
pub(super) fn undone(failure: Failure) -> StoreError {
    match failure {
        Failure::Sql(error) => before_commit(&error),
        Failure::Corrupt(cause) => StoreError::Corrupt { store: STORE, cause },
    }
}

/// An error of a read, or of a change before its commit.
pub(super) fn before_commit(error: &Error) -> StoreError {
    let is_corrupt = match database(error) {
        // Classes 22 (data) and 23 (constraints) are about the values. So is MySQL's error for a
        // violated CHECK, which has the state HY000.
        Some(database) => {
            database.code().is_some_and(|state| state.starts_with("22") || state.starts_with("23"))
                || error.as_database_error().is_some_and(|error| error.is_check_violation())
                || matches!(
                    database.number(),
                    code::CANNOT_CONVERT_STRING | code::IMPOSSIBLE_CONVERSION
                )
        }
        None => matches!(
            error,
            Error::ColumnDecode { .. }
                | Error::Decode(_)
                | Error::ColumnNotFound(_)
                | Error::Encode(_)
        ),
    };
    let cause = cause(error);
    if is_corrupt {
        StoreError::Corrupt { store: STORE, cause }
    } else {
        StoreError::Unavailable { store: STORE, cause }
    }
}

/// An error of the commit itself.
pub(super) fn at_commit(error: &Error) -> StoreError {
    StoreError::Unknown { store: STORE, cause: cause(error) }
}

/// The message, without the values that some messages repeat: a value may be a phone number.
fn cause(error: &Error) -> String {
    let Some(database) = database(error) else {
        return error.to_string();
    };
    let number = database.number();
    if matches!(number, code::CANNOT_CONVERT_STRING | code::IMPOSSIBLE_CONVERSION) {
        return format!("error {number}, value refused: a character that its column can't hold");
    }
    let message = database.message();
    let named = [" for key ", " for column "]
        .into_iter()
        .find_map(|mark| message.rfind(mark).map(|at| &message[at..]));
    match named {
        Some(place) => format!("error {number}, value refused{place}"),
        None => format!("error {number}: {message}"),
    }
}
