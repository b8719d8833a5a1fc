//! Compressed files, as their names tell: `.gz`, `.zst`, else as they are.
//!
//! Invariant: what is unpacked at a time is bounded, however well it was packed; a file that ends early is an error.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use watershed_core::{Error, Result};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

pub(super) const GZIP: &str = ".gz";
pub(super) const ZSTD: &str = ".zst";

/// Bytes that are unpacked at a time.
const PIECE: usize = 16 << 10;

/// Bytes that come of it at most: zstd's can be very many.
const ROOM: usize = 256 << 10;

/// A file's bytes on their way out of its compression.
pub(super) struct Unpacked {
    /// What was pushed, and how much of it is unpacked.
    packed: Vec<u8>,
    done: usize,
    codec: Codec,
}

enum Codec {
    Plain,
    Gzip {
        decoder: Box<MultiGzDecoder<Vec<u8>>>,
        finished: bool,
    },
    /// `open`: a frame was begun and did not end.
    Zstd {
        decoder: Decoder<'static>,
        room: Vec<u8>,
        open: bool,
    },
}

impl Unpacked {
    pub(super) fn new(path: &str) -> Result<Self> {
        let codec = if path.ends_with(GZIP) {
            Codec::Gzip { decoder: Box::new(MultiGzDecoder::new(vec![])), finished: false }
        } else if path.ends_with(ZSTD) {
            let decoder = Decoder::new().map_err(|e| Error::bug(format!("zstd: {e}")))?;
            Codec::Zstd { decoder, room: vec![0; ROOM], open: false }
        } else {
            Codec::Plain
        };
        Ok(Unpacked { packed: vec![], done: 0, codec })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.packed.extend_from_slice(bytes);
    }

    /// Unpacks some more behind what is in `into`; whether there is still more of what was pushed.
    pub(super) fn next(&mut self, into: &mut Vec<u8>, all: bool) -> Result<bool> {
        let wrong = |e: io::Error| Error::input(format!("it cannot be unpacked, or is cut off: {e}"));
        let rest = &self.packed[self.done..];
        match &mut self.codec {
            Codec::Plain => {
                into.extend_from_slice(rest);
                self.done = self.packed.len();
            }
            Codec::Gzip { decoder, finished } => {
                let piece = &rest[..rest.len().min(PIECE)];
                decoder.write_all(piece).map_err(wrong)?;
                self.done += piece.len();
                if all && self.done == self.packed.len() && !*finished {
                    *finished = true;
                    decoder.try_finish().map_err(wrong)?;
                }
                into.append(decoder.get_mut());
            }
            Codec::Zstd { decoder, room, open } => {
                let mut input = InBuffer::around(&rest[..rest.len().min(PIECE)]);
                let mut output = OutBuffer::around(&mut room[..]);
                let hint = match rest.is_empty() && !*open {
                    true => 0,
                    false => decoder.run(&mut input, &mut output).map_err(wrong)?,
                };
                let came = output.pos();
                self.done += input.pos();
                let full = came == ROOM;
                into.extend_from_slice(&room[..came]);
                *open = hint != 0;
                if full {
                    return Ok(true);
                }
                if all && self.done == self.packed.len() && *open {
                    return Err(wrong(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        if self.done == self.packed.len() {
            self.packed.clear();
            self.done = 0;
        }
        Ok(self.done < self.packed.len())
    }
}
