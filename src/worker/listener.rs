//! Opens the addresses that clients connect to.
//!
//! Must not know: who accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("{addr} is taken by another program; stop that one, or set {setting} to another address")]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// The configuration key (and environment variable) that names it.
        setting: &'static str,
    },
    /// The Unix socket cannot be had.
    #[error("cannot listen on the Unix socket {} ([server] unix_socket): {error}", path.display())]
    Unix {
        /// Where.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {addr} ({setting}): {error}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// The configuration key that names it.
        setting: &'static str,
        /// The system's word.
        error: io::Error,
    },
}

/// Opens a listening socket; `setting` names the configuration key for the error text.
///
/// # Errors
/// [`ListenError`].
pub fn bind(addr: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { addr, setting },
        _ => ListenError::Other { addr, setting, error },
    })
}

/// Opens a Unix socket that clients of this machine connect to; `mode` are its permissions. A socket that nobody answers at
/// is taken over.
///
/// # Errors
/// [`ListenError`].
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let open = || {
        if std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        // Before anybody can connect.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        Ok(UnixListener::from(socket))
    };
    open().map_err(|error: io::Error| ListenError::Unix { path: path.to_owned(), error })
}
