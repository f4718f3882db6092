//! Shuts down a connection's socket without the library's help.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

/// A second handle to a connection's socket. lapin runs one thread per connection; a server that
/// accepts and then stays silent would keep it for ever. Shutting down the socket ends that thread.
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
    /// Takes over the socket. Fails when the shutdown was requested before the socket existed.
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
            // Fails only when the other side has closed the socket already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// When dropped, shuts the socket down, which ends the library's thread.
pub(super) struct SocketGuard(pub(super) SocketHandle);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}
