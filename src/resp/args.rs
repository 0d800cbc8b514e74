//! The arguments of one scanned request, as spans into the bytes it arrived in.
//!
//! Must not know: what the arguments mean.

/// Where one argument lies inside its frame: byte offsets, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte of the argument.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
}

/// A borrowed view of one request: its raw bytes plus the span of each argument.
///
/// Every span was produced by [`super::RequestScanner`] over the same frame, so it lies inside it; the accessors
/// still return `Option` and never panic.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    frame: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// A view of `frame` with arguments at `spans`.
    pub fn new(frame: &'a [u8], spans: &'a [Span]) -> Self {
        Self { frame, spans }
    }

    /// Number of arguments, the command name included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True when there is not even a command name.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `index` (0 is the command name), or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        self.frame.get(span.start as usize..span.end as usize)
    }

    /// The arguments from `first` on, as if they were a request of their own; its frame is that of the whole.
    pub fn from(&self, first: usize) -> Self {
        Self { frame: self.frame, spans: self.spans.get(first..).unwrap_or_default() }
    }

    /// The command name as the client spelled it; empty when there is none.
    pub fn name(&self) -> &'a [u8] {
        self.get(0).unwrap_or_default()
    }

    /// All arguments in order, the command name first.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let frame = self.frame;
        self.spans.iter().filter_map(move |span| frame.get(span.start as usize..span.end as usize))
    }

    /// The whole request as it arrived, to be forwarded unchanged.
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Argument `index` with its `$<length>\r\n` header and trailing CRLF, ready to be copied into another request.
    pub fn encoded(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        let start = match index.checked_sub(1) {
            Some(previous) => self.spans.get(previous)?.end as usize + 2,
            None => memchr::memchr(b'\n', self.frame)? + 1,
        };
        self.frame.get(start..span.end as usize + 2)
    }
}
