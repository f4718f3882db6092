//! A stream with a write timeout.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::activity::Activity;

/// How much of an unread answer the kernel buffers. The kernel reports the socket writable only
/// when about a third of the buffer is free, so a peer that reads a few bytes at a time makes no
/// progress.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// A stream whose writes fail after a timeout when the peer does not read.
pub struct TimedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    write_timeout: Duration,
    /// The timeout, running while a write waits for the socket.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    pub fn new(stream: TcpStream, activity: Arc<Activity>, write_timeout: Duration) -> Self {
        // Without these options, answers are slower or unread ones need more memory: log the error
        // and go on.
        if let Err(error) = stream.set_nodelay(true).and_then(|()| {
            Ok(rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?)
        }) {
            tracing::debug!(%error, "socket options");
        }
        Self { stream, activity, write_timeout, stalled: None }
    }

    fn written(
        &mut self,
        outcome: Poll<std::io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        if outcome.is_ready() {
            if self.stalled.take().is_some() {
                self.activity.set_sending(false);
            }
            self.activity.touch();
            return outcome;
        }
        if self.stalled.is_none() {
            self.activity.set_sending(true);
        }
        let write_timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        ready!(stalled.as_mut().poll(cx));
        // Without this the kernel would keep the buffered data until the peer reads it or goes
        // away.
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "linger");
        }
        Poll::Ready(Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the peer does not read",
        )))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
