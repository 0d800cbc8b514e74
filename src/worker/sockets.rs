//! The sockets of one worker, by index of the client or upstream connection they belong to.
//!
//! Must not know: what the bytes mean.

use super::stream::Stream;
use std::io;
use std::task::{Context, Poll, Waker};

/// One socket with the waker of the task that serves it.
pub(super) struct Socket {
    stream: Stream,
    waker: Waker,
    /// The peer does not take more for now; the task is woken when it does.
    pub blocked: bool,
    /// When it last took something, in microseconds of the core's clock.
    pub wrote_at: u64,
    /// When something last came from it, in microseconds of the core's clock.
    pub read_at: u64,
}

impl Socket {
    pub fn new(stream: Stream, now: u64) -> Self {
        Self { stream, waker: Waker::noop().clone(), blocked: false, wrote_at: now, read_at: now }
    }

    /// Remembers whom to wake.
    #[inline]
    pub fn register(&mut self, waker: &Waker) {
        if !self.waker.will_wake(waker) {
            self.waker = waker.clone();
        }
    }

    /// Wakes the task that serves this socket.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// Reads once; 0 at the end.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_read(cx, buf)
    }

    /// True when what was taken is not all on its way yet: it must not be closed.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.stream.has_unsent()
    }

    /// Says goodbye; closed when dropped.
    pub fn close(&mut self) {
        self.stream.close();
        self.wake();
    }

    /// Writes what the socket takes now; when that is not everything, the task is woken once it takes more.
    ///
    /// # Errors
    /// When the connection is gone.
    #[inline]
    pub fn write(&mut self, bytes: &[u8], now: u64) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() || self.stream.has_unsent() {
            match self.stream.try_write(&bytes[written..]) {
                Ok(0) if written < bytes.len() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    written += n;
                    self.wrote_at = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut cx = Context::from_waker(&self.waker);
                    match self.stream.poll_write_ready(&mut cx) {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(error)) => return Err(error),
                        Poll::Pending => {
                            self.blocked = true;
                            return Ok(written);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.blocked = false;
        Ok(written)
    }
}
