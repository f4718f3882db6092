//! What the library's errors mean to callers.

use lapin::ErrorKind;

use crate::ports::StoreError;

/// This store's name in errors.
const STORE: &str = "RabbitMQ";

pub(super) fn unavailable(cause: impl ToString) -> StoreError {
    StoreError::Unavailable { store: STORE, cause: cause.to_string() }
}

pub(super) fn unknown(cause: impl ToString) -> StoreError {
    StoreError::Unknown { store: STORE, cause: cause.to_string() }
}

/// For a call that was refused before it was sent, or whose effect does no harm if it is lost.
pub(super) fn not_done(error: &lapin::Error) -> StoreError {
    unavailable(error)
}

/// Whether the library itself refused the call, because it knew that the connection or channel was
/// gone.
pub(super) fn never_sent(error: &lapin::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidConnectionState(_)
            | ErrorKind::InvalidChannel(_)
    )
}
