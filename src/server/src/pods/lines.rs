//! A stream, line by line.
//!
//! Invariant: of a line that does not end, no more is kept than a line may have and one chunk.

/// A line is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is too long")]
pub(super) struct TooLong;

/// What came of a stream and was not yet taken.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// How much of it has no end of a line.
    looked: usize,
    len_max: usize,
}

impl Lines {
    /// Of at most so many bytes each.
    pub(super) fn new(len_max: usize) -> Self {
        Self { buffer: Vec::new(), looked: 0, len_max }
    }

    /// Adds what came.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line, without its end.
    ///
    /// # Errors
    /// It is too long, also if it has no end yet.
    pub(super) fn take_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let fresh = self.buffer.get(self.looked..).unwrap_or_default();
        let end = fresh.iter().position(|&byte| byte == b'\n').map(|end| self.looked + end);
        let length = end.unwrap_or(self.buffer.len());
        if length > self.len_max {
            return Err(TooLong);
        }
        let Some(end) = end else {
            self.looked = self.buffer.len();
            return Ok(None);
        };
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.looked = 0;
        line.pop();
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in_however_they_are_cut() {
        let text = b"one\n\ntwo and more\nthree\n";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::new(64), Vec::new());
            for chunk in text.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.take_line().unwrap() {
                    found.push(String::from_utf8(line).unwrap());
                }
            }
            assert_eq!(found, ["one", "", "two and more", "three"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_not_kept() {
        let mut lines = Lines::new(8);
        lines.push(b"12345678\n");
        assert_eq!(lines.take_line(), Ok(Some(b"12345678".to_vec())));
        lines.push(b"123456789\n");
        assert_eq!(lines.take_line(), Err(TooLong));
        let mut lines = Lines::new(8);
        lines.push(b"12345678");
        assert_eq!(lines.take_line(), Ok(None), "what follows may be its end");
        lines.push(b"9");
        assert_eq!(lines.take_line(), Err(TooLong));
    }

    #[test]
    fn what_has_no_end_yet_is_no_line() {
        let mut lines = Lines::new(8);
        lines.push(b"half");
        assert_eq!(lines.take_line(), Ok(None));
    }
}
