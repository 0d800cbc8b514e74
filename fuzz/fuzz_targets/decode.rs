//! Decoding: no reply, however deep, may take the stack; what is decoded can be encoded and decoded again.
#![no_main]

use dsproxy::resp::decode_reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((repeat, data)) = data.split_first() else { return };
    // One small piece many times over is how nesting becomes deep.
    let deep = data.repeat(usize::from(*repeat) * 8 + 1);
    let mut tail = deep.clone();
    tail.extend_from_slice(b":1\r\n");
    for reply in [data, &deep, &tail] {
        let _ = decode_reply(reply);
    }
});
