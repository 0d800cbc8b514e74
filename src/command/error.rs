//! Redis' own words for requests that name no command, or name one with too few or too many arguments.
//!
//! Must not know: how a reply is sent.
//!
//! The texts are without the leading `-` and the trailing CRLF. They quote what the client sent, so they are bytes.

use super::Command;
use crate::resp::Args;

/// Redis quotes at most this many bytes of a name, and of all arguments together (`commandCheckExistence`, server.c).
const QUOTED: usize = 128;

/// Why a request names no command that could run; the client's fault, and trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// No such command.
    UnknownCommand,
    /// The container has no such subcommand.
    UnknownSubcommand,
    /// The command exists and takes another number of arguments.
    WrongArity(&'static Command),
}

impl ResolveError {
    /// The error line for the request `args`.
    pub fn message(self, args: &Args<'_>) -> Vec<u8> {
        match self {
            Self::UnknownCommand => unknown_command_error(args),
            Self::UnknownSubcommand => unknown_subcommand_error(args),
            Self::WrongArity(command) => wrong_arity_error(command).into_bytes(),
        }
    }
}

/// `ERR unknown command 'foo', with args beginning with: 'a' 'b' `, the trailing blank included.
pub fn unknown_command_error(args: &Args<'_>) -> Vec<u8> {
    let mut quoted = Vec::new();
    for arg in args.iter().skip(1) {
        if quoted.len() >= QUOTED {
            break;
        }
        let room = QUOTED - quoted.len();
        quoted.push(b'\'');
        quoted.extend_from_slice(as_c_string(arg, room));
        quoted.extend_from_slice(b"' ");
    }
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(as_c_string(args.name(), QUOTED));
    text.extend_from_slice(b"', with args beginning with: ");
    text.extend_from_slice(&quoted);
    one_line(text)
}

/// `ERR unknown subcommand 'x'. Try CONFIG HELP.`
pub fn unknown_subcommand_error(args: &Args<'_>) -> Vec<u8> {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(as_c_string(args.get(1).unwrap_or_default(), QUOTED));
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(&args.name().to_ascii_uppercase());
    text.extend_from_slice(b" HELP.");
    one_line(text)
}

/// `ERR wrong number of arguments for 'config|get' command`
pub fn wrong_arity_error(command: &Command) -> String {
    format!("ERR wrong number of arguments for '{}' command", command.name)
}

/// What C's `%.*s` prints: at most `limit` bytes, and nothing from the first NUL on.
fn as_c_string(text: &[u8], limit: usize) -> &[u8] {
    let end = text.iter().take(limit).position(|&byte| byte == 0).unwrap_or(text.len().min(limit));
    text.get(..end).unwrap_or(text)
}

/// An error reply is one line, whatever the client put into it.
fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    text
}
