//! Ends a connection's socket from outside of the library.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

/// A second handle to a connection's socket. lapin has a thread per connection, which a server that accepts and then
/// stays silent would keep for ever; shutting the socket down is what ends it.
#[derive(Clone, Default)]
pub(super) struct SocketHandle(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    NotConnected,
    Connected(TcpStream),
    ShutDown,
}

impl SocketHandle {
    /// Takes the socket; fails when it was to be shut down before it was there.
    pub(super) fn attach(&self, socket: TcpStream) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::ShutDown) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *state = State::Connected(socket);
        Ok(())
    }

    fn shut_down(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Connected(socket) = std::mem::replace(&mut *state, State::ShutDown) {
            // Fails only when the other side has ended it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Shuts the socket down, which ends the library's thread, when dropped.
pub(super) struct SocketGuard(pub(super) SocketHandle);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}
