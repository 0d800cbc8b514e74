//! The byte streams under a worker's sockets: TCP, a Unix socket, TLS over TCP.
//!
//! Must not know: clients, nodes.
//!
//! A TLS session is fed by hand: what the socket has goes into it, what it has for the socket is written. So the driver
//! treats all of them alike, and plain TCP pays one comparison.

use super::Incoming;
use crate::tls::Dialer;
use std::io::{self, Read, Write};
use std::task::{Context, Poll, ready};
use tokio::net::{TcpStream, UnixStream};

/// A stream.
pub(super) enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
    /// Encrypted; the handshake is over.
    Tls(Box<TlsStream>),
}

/// Connects to a node. Not cancel-safe: the connection is lost.
pub(super) async fn connect(addr: &str, tls: Option<&Dialer>) -> io::Result<Stream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Stream::Tcp(stream)),
        Some(dialer) => {
            let (stream, session) = dialer.connect(addr, stream).await?.into_inner();
            Ok(Stream::Tls(Box::new(TlsStream { stream, session: session.into() })))
        }
    }
}

impl Incoming {
    /// Puts it under this thread's event loop; with the address of ours that it came to.
    pub(super) fn open(self) -> io::Result<(Stream, Option<String>)> {
        let local = |stream: &TcpStream| stream.local_addr().ok().map(|addr| addr.to_string());
        Ok(match self {
            Self::Tcp(stream) => {
                let stream = TcpStream::from_std(stream)?;
                let local = local(&stream);
                (Stream::Tcp(stream), local)
            }
            Self::Unix(stream) => {
                let stream = UnixStream::from_std(stream)?;
                let path =
                    stream.local_addr().ok().and_then(|addr| Some(addr.as_pathname()?.display().to_string()));
                (Stream::Unix(stream), path.map(|path| format!("{path}:0")))
            }
            Self::Tls(stream, session) => {
                let stream = TcpStream::from_std(stream)?;
                let local = local(&stream);
                (Stream::Tls(Box::new(TlsStream { stream, session: (*session).into() })), local)
            }
        })
    }
}

impl Stream {
    /// Reads once; 0 at the end. A short read clears readiness, so the next call waits without another system call.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => poll_plain(stream, cx, buf),
            Self::Unix(stream) => poll_plain(stream, cx, buf),
            Self::Tls(stream) => stream.poll_read(cx, buf),
        }
    }

    /// Writes what is taken now.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Ready when something can be written; wakes the task then.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
            Self::Tls(stream) => stream.stream.poll_write_ready(cx),
        }
    }

    /// True when it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// True when what was taken is not all on its way yet.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.session.wants_write())
    }

    /// Says goodbye where the protocol has a word for it.
    pub fn close(&mut self) {
        if let Self::Tls(stream) = self {
            stream.session.send_close_notify();
            let _ = stream.flush();
        }
    }
}

#[inline]
fn poll_plain(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut read = tokio::io::ReadBuf::new(buf);
    ready!(std::pin::Pin::new(stream).poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

/// A TLS session and its socket.
pub(super) struct TlsStream {
    stream: TcpStream,
    session: rustls::Connection,
}

impl TlsStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
            ready!(self.stream.poll_read_ready(cx))?;
            match self.session.read_tls(&mut Socket(&self.stream)) {
                Ok(_) => {
                    if let Err(error) = self.session.process_new_packets() {
                        // The other side learns why.
                        let _ = self.flush();
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                    }
                    self.flush()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        if self.session.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    /// Sends what the session has, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a session reads from and writes to.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
