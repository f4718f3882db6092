//! What the library's errors mean to callers.

use lapin::ErrorKind;

use crate::ports::StoreError;

/// The name of this store in errors.
const STORE: &str = "RabbitMQ";

pub(super) fn unavailable(cause: impl ToString) -> StoreError {
    StoreError::Unavailable { store: STORE, cause: cause.to_string() }
}

pub(super) fn unknown(cause: impl ToString) -> StoreError {
    StoreError::Unknown { store: STORE, cause: cause.to_string() }
}

/// For a call that changes nothing that matters when it is lost, or that was refused before it was sent.
pub(super) fn not_done(error: &lapin::Error) -> StoreError {
    unavailable(error)
}

/// Whether the library refused the call itself, because it knew the connection or channel to be gone.
pub(super) fn never_sent(error: &lapin::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidConnectionState(_)
            | ErrorKind::InvalidChannel(_)
    )
}
