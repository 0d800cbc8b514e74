//! `ACL`: what can be said while there is one user.
//!
//! Must not know: passwords.

use super::{Refusal, unsupported};
use crate::command::{self, Categories, Command};
use crate::resp::{Args, push_array_header, push_bulk};
use std::io::Read;

/// Bits of `ACL GENPASS` unless told otherwise, and the most it gives.
const BITS: (i64, i64) = (256, 4096);

pub(super) fn acl_command(command: &Command, args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    match command.short_name() {
        "whoami" => push_bulk(reply, b"default"),
        "cat" => return cat(args, reply),
        "genpass" => return generate(args, reply),
        _ => return Err(unsupported(command)),
    }
    Ok(())
}

/// `ACL CAT [category]`
fn cat(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    if args.len() > 3 {
        let text = "ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.";
        return Err(text.into());
    }
    let Some(name) = args.get(2) else {
        let names: Vec<_> = Categories::all().collect();
        push_array_header(reply, names.len());
        names.iter().for_each(|name| push_bulk(reply, name.as_bytes()));
        return Ok(());
    };
    let wanted =
        std::str::from_utf8(name).ok().and_then(|name| Categories::named(&name.to_ascii_lowercase()));
    let Some(wanted) = wanted else {
        return Err(format!("ERR Unknown category '{}'", name.escape_ascii()));
    };
    let names: Vec<_> =
        command::all().filter(|command| command.categories.contains(wanted)).map(|c| c.name).collect();
    push_array_header(reply, names.len());
    names.iter().for_each(|name| push_bulk(reply, name.as_bytes()));
    Ok(())
}

/// `ACL GENPASS [bits]`
fn generate(args: &Args<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
    let bits = match args.get(2) {
        Some(bits) => super::integer(bits).ok_or(super::NO_INTEGER)?,
        None => BITS.0,
    };
    if args.len() > 3 || !(1..=BITS.1).contains(&bits) {
        let text = "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096";
        return Err(text.into());
    }
    let digits = (bits as usize).div_ceil(4);
    let mut random = vec![0; digits.div_ceil(2)];
    let filled = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    filled.map_err(|error| format!("ERR dsproxy: the system gives no random numbers: {error}"))?;
    let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    push_bulk(reply, text.as_bytes());
    Ok(())
}
