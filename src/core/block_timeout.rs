//! How long a blocking command may wait, as it says itself.
//!
//! Must not know: connections, clients.

use crate::command::Command;
use crate::resp::{Args, RequestLimits, RequestScanner, Scan, push_array_header, push_bulk};

/// Where the timeout stands, and how many microseconds its unit is.
fn place(command: &Command, args: &Args<'_>) -> Option<(usize, f64)> {
    match command.name {
        "blmpop" | "bzmpop" => Some((1, 1e6)),
        "xread" | "xreadgroup" => {
            let option = (1..args.len())
                .find(|at| args.get(*at).is_some_and(|arg| arg.eq_ignore_ascii_case(b"block")))?;
            Some((option + 1, 1e3))
        }
        _ => args.len().checked_sub(1).map(|last| (last, 1e6)),
    }
}

/// How long the command may wait, in microseconds; `u64::MAX` for as long as it takes. What is no timeout is refused by
/// the server at once, so it is none here.
pub(super) fn wait_us(command: &Command, args: &Args<'_>) -> u64 {
    let given = place(command, args).and_then(|(at, unit)| {
        let number: f64 = std::str::from_utf8(args.get(at)?).ok()?.parse().ok()?;
        Some(number * unit)
    });
    match given {
        Some(0.0) => u64::MAX,
        Some(us) if us > 0.0 => us as u64,
        _ => 0,
    }
}

/// The same request with `left_us` microseconds to wait, at least one millisecond: it has waited at another node already.
pub(super) fn with_wait(command: &Command, request: &[u8], left_us: u64) -> Option<Vec<u8>> {
    let mut scanner = RequestScanner::default();
    let Ok(Scan::Complete(_)) = scanner.scan(request, &RequestLimits::default()) else { return None };
    let args = Args::new(request, scanner.spans());
    let (timeout, unit) = place(command, &args)?;
    let ms = left_us.div_ceil(1000).max(1);
    let text = if unit < 1e6 { ms.to_string() } else { format!("{}.{:03}", ms / 1000, ms % 1000) };
    let mut again = Vec::with_capacity(request.len());
    push_array_header(&mut again, args.len());
    for at in 0..args.len() {
        if at == timeout {
            push_bulk(&mut again, text.as_bytes());
        } else {
            again.extend_from_slice(args.encoded(at)?);
        }
    }
    Some(again)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::*;

    fn of(line: &str) -> (u64, String) {
        let mut request = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        crate::resp::push_command(&mut request, words.iter().copied());
        let mut scanner = RequestScanner::default();
        scanner.scan(&request, &RequestLimits::default()).unwrap();
        let args = Args::new(&request, scanner.spans());
        let command = crate::command::resolve(&args).unwrap();
        let again = with_wait(command, &request, 1_500_000).unwrap();
        let mut scanner = RequestScanner::default();
        scanner.scan(&again, &RequestLimits::default()).unwrap();
        let words: Vec<_> = Args::new(&again, scanner.spans())
            .iter()
            .map(String::from_utf8_lossy)
            .map(String::from)
            .collect();
        (wait_us(command, &args), words.join(" "))
    }

    #[test]
    fn the_timeout_is_found_wherever_it_stands() {
        for (line, us, again) in [
            ("BLPOP a b 0.25", 250_000, "BLPOP a b 1.500"),
            ("BRPOP a 0", u64::MAX, "BRPOP a 1.500"),
            ("BLMOVE a b LEFT RIGHT 3", 3_000_000, "BLMOVE a b LEFT RIGHT 1.500"),
            ("BLMPOP 2 1 a LEFT COUNT 5", 2_000_000, "BLMPOP 1.500 1 a LEFT COUNT 5"),
            ("BZMPOP 0 1 a MIN", u64::MAX, "BZMPOP 1.500 1 a MIN"),
            ("XREAD COUNT 1 BLOCK 40 STREAMS s $", 40_000, "XREAD COUNT 1 BLOCK 1500 STREAMS s $"),
            (
                "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
                u64::MAX,
                "XREADGROUP GROUP g c BLOCK 1500 STREAMS s >",
            ),
            ("BLPOP a -1", 0, "BLPOP a 1.500"),
            ("BLPOP a what", 0, "BLPOP a 1.500"),
        ] {
            assert_eq!(of(line), (us, again.to_owned()), "{line}");
        }
    }
}
