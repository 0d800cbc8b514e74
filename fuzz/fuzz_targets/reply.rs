//! Replies: however the bytes are cut, the end is the same, and `redis-protocol` finds the same where it can read it.
#![no_main]

use dsproxy::resp::{MalformedReply, ReplyScanner, Scan, decode_reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((step, data)) = data.split_first() else { return };
    let result = ReplyScanner::default().scan(data);
    assert_eq!(result, in_pieces(data, usize::from(*step) % 7 + 1));
    match result {
        Ok(Scan::Complete(end)) => {
            assert!(0 < end && end <= data.len());
            assert_eq!(ReplyScanner::default().scan(&data[..end]), Ok(Scan::Complete(end)));
            assert!(matches!(ReplyScanner::default().scan(&data[..end - 1]), Ok(Scan::Incomplete(_))));
            // Refuses or reads all of it; either way it comes back.
            let _ = decode_reply(&data[..end]);
        }
        Ok(Scan::Incomplete(need)) => assert!(need > data.len()),
        Err(MalformedReply) => assert_eq!(decode_reply(data), Err(MalformedReply)),
    }
});

fn in_pieces(data: &[u8], step: usize) -> Result<Scan, MalformedReply> {
    let mut scanner = ReplyScanner::default();
    let mut have = 0;
    loop {
        match scanner.scan(&data[..have])? {
            Scan::Complete(end) => return Ok(Scan::Complete(end)),
            Scan::Incomplete(need) => {
                assert!(need > have);
                if have == data.len() {
                    return Ok(Scan::Incomplete(need));
                }
            }
        }
        have = (have + step).min(data.len());
    }
}
