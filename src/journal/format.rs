//! The bytes of a journal: the header of a segment, the frame around a record.
//!
//! Must not know: files, what a payload means.
//!
//! All numbers are little-endian. A segment starts with 64 bytes:
//!
//! ```text
//! 0 magic (8)   8 format version u32   12 CRC32C of bytes 16..64 u32   16 first sequence u64   24 capacity u64
//! 32 made at, Unix ms u64   40 zeros
//! ```
//!
//! A frame is 36 bytes, then its payload:
//!
//! ```text
//! 0 CRC32C of all that follows u32   4 payload length u32   8 count u32   12 first sequence u64   20 synced u64
//! 28 written at, Unix ms u64   36 payload
//! ```
//!
//! A record has `count` sequence numbers (one per write of its payload, so that a transaction is one record). A frame with
//! count 0 is a mark, one with `SEAL` ends its segment; both have the next sequence and no payload. `synced` is the last
//! sequence that was on the disk when the frame was written: a frame that cannot be read, before one that says so, is
//! damage; without, it is the torn end of a write that nobody was told of.

/// The first bytes of each segment.
pub(super) const MAGIC: [u8; 8] = *b"dsproxyJ";
/// The version this program writes, and the highest it reads.
pub(super) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 64;
/// Bytes of a frame without its payload.
pub(super) const FRAME: usize = 36;
/// The count that ends a segment.
const SEAL: u32 = u32::MAX;
/// Sequence numbers of one record at most.
pub(super) const MOST_ENTRIES: u32 = SEAL - 1;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Sequence of its first record.
    pub first: u64,
    /// Bytes the file was made with.
    pub capacity: u64,
    /// When it was made, Unix ms.
    pub made: u64,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Not a journal's.
    Magic,
    /// Of a version this program does not know.
    Newer(u32),
    /// Its checksum is wrong.
    Checksum,
}

impl SegmentHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.made.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads it from the start of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(BadHeader::Magic)?;
        if bytes[..8] != MAGIC {
            return Err(BadHeader::Magic);
        }
        // Before the checksum: a newer version may have another header.
        match u32_at(bytes, 8) {
            VERSION => {}
            0 => return Err(BadHeader::Checksum),
            newer => return Err(BadHeader::Newer(newer)),
        }
        if crc32c::crc32c(&bytes[16..]) != u32_at(bytes, 12) {
            return Err(BadHeader::Checksum);
        }
        Ok(Self { first: u64_at(bytes, 16), capacity: u64_at(bytes, 24), made: u64_at(bytes, 32) })
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record of so many sequence numbers.
    Record(u32),
    /// Says that everything before it is on the disk.
    Mark,
    /// The end of its segment.
    Seal,
}

/// The start of a frame, and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'b> {
    pub kind: Kind,
    /// Sequence of the first entry; of a mark or seal, the next one to come.
    pub first: u64,
    /// The last sequence on the disk when this was written.
    pub synced: u64,
    /// When it was written, Unix ms.
    pub at: u64,
    pub payload: &'b [u8],
}

impl<'b> Frame<'b> {
    /// Reads the frame at the start of `bytes`; `None` unless it is whole and right.
    pub fn decode(bytes: &'b [u8]) -> Option<Self> {
        let head = bytes.get(..FRAME)?;
        let end = FRAME.checked_add(u32_at(head, 4) as usize)?;
        let checked = bytes.get(4..end)?;
        // Of 36 zeros the checksum is not zero: an empty place is no frame.
        if crc32c::crc32c(checked) != u32_at(head, 0) {
            return None;
        }
        let kind = match u32_at(head, 8) {
            0 => Kind::Mark,
            SEAL => Kind::Seal,
            count => Kind::Record(count),
        };
        let payload = bytes.get(FRAME..end)?;
        Some(Self { kind, first: u64_at(head, 12), synced: u64_at(head, 20), at: u64_at(head, 28), payload })
    }

    /// Bytes of the frame and its payload.
    pub fn len(&self) -> usize {
        FRAME + self.payload.len()
    }

    /// The sequence that follows it.
    pub fn next(&self) -> u64 {
        match self.kind {
            Kind::Record(count) => self.first.saturating_add(u64::from(count)),
            Kind::Mark | Kind::Seal => self.first,
        }
    }
}

/// A place for a frame's head at the end of `out`, to be filled by [`finish`].
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + FRAME, 0);
    start
}

/// Fills the head of the frame that begins at `start` and reaches to the end of `out`.
pub(super) fn finish(out: &mut [u8], start: usize, kind: Kind, first: u64, synced: u64, at: u64) {
    let Some(frame) = out.get_mut(start..).filter(|frame| frame.len() >= FRAME) else { return };
    let length = (frame.len() - FRAME) as u32;
    let count = match kind {
        Kind::Record(count) => count,
        Kind::Mark => 0,
        Kind::Seal => SEAL,
    };
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..12].copy_from_slice(&count.to_le_bytes());
    frame[12..20].copy_from_slice(&first.to_le_bytes());
    frame[20..28].copy_from_slice(&synced.to_le_bytes());
    frame[28..36].copy_from_slice(&at.to_le_bytes());
    let sum = crc32c::crc32c(&frame[4..]);
    frame[..4].copy_from_slice(&sum.to_le_bytes());
}

/// A frame without payload.
pub(super) fn bare(kind: Kind, next: u64, at: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME);
    let start = begin(&mut out);
    finish(&mut out, start, kind, next, next.saturating_sub(1), at);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The sequence a frame at the start of `bytes` would have: a quick look before its checksum is computed.
pub(super) fn peek_first(bytes: &[u8]) -> Option<u64> {
    bytes.get(12..20).map(|b| u64_at(b, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_every_flip_of_it_is_seen() {
        let mut bytes = Vec::new();
        let start = begin(&mut bytes);
        bytes.extend_from_slice(b"payload");
        finish(&mut bytes, start, Kind::Record(3), 41, 40, 1_700_000_000_000);
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!(
            (frame.kind, frame.first, frame.synced, frame.payload),
            (Kind::Record(3), 41, 40, &b"payload"[..])
        );
        assert_eq!((frame.len(), frame.next()), (bytes.len(), 44));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(&broken), None, "bit {bit}");
        }
        assert_eq!(Frame::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Frame::decode(&[0; 4096]), None, "an empty place");
    }

    #[test]
    fn every_flip_of_a_header_is_seen() {
        let header = SegmentHeader { first: 7, capacity: 4096, made: 3 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&broken).is_err(), "bit {bit}");
        }
    }
}
