//! The [wire format](https://protobuf.dev/programming-guides/encoding/): a message as its fields, whatever they mean.
//!
//! What is done for each field is inlined: handing a value over in memory would cost more than reading it.
//!
//! Invariant: every value lies within the bytes it was read from; nothing is copied, and what is nested is not walked
//! recursively.

use super::bad::Bad;

/// A field's value, as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// What lies between its beginning and its end.
    Group(&'a [u8]),
    Fixed32(u32),
}

impl Wire<'_> {
    /// Its type, as the specification calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Wire::Varint(_) => "VARINT",
            Wire::Fixed64(_) => "I64",
            Wire::Bytes(_) => "LEN",
            Wire::Group(_) => "GROUP",
            Wire::Fixed32(_) => "I32",
        }
    }
}

/// Groups within groups, as deep as Google's own parsers follow.
const DEEPEST: usize = 100;

/// The largest number of a field.
const LARGEST: u64 = (1 << 29) - 1;

const CUT: &str = "the Protobuf message is cut off";

/// What is left to read of a message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, by its number; `None`: the message is at its end.
    #[inline(always)]
    pub(super) fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, Bad> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let value = match self.tag()? {
            (number, 3) => (number, Wire::Group(self.group(number)?)),
            (number, 4) => return Err(format!("group {number} ends, and did not begin").into()),
            (number, of_type) => (number, self.value(of_type)?),
        };
        Ok(Some(value))
    }

    /// Seven bits a byte, the lowest first.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Bad> {
        if let [byte @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.longer()
    }

    fn longer(&mut self) -> Result<u64, Bad> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { CUT } else { "a number in it is longer than 64 bits" }.into())
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, Bad> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(super) fn fixed32(&mut self) -> Result<u32, Bad> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let length = self.varint()?;
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (bytes, rest) = split.ok_or(CUT)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A field's number and the number of its wire type.
    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), Bad> {
        let tag = self.varint()?;
        match tag >> 3 {
            number @ 1..=LARGEST => Ok((number as u32, (tag & 7) as u8)),
            number => Err(format!("{number} is no number of a field").into()),
        }
    }

    /// One that is no group.
    #[inline(always)]
    fn value(&mut self, of_type: u8) -> Result<Wire<'a>, Bad> {
        Ok(match of_type {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => Wire::Bytes(self.bytes()?),
            5 => Wire::Fixed32(self.fixed32()?),
            other => return Err(format!("{other} is no wire type").into()),
        })
    }

    /// What a group holds that has begun.
    fn group(&mut self, number: u32) -> Result<&'a [u8], Bad> {
        let whole = self.rest;
        let mut open = vec![number];
        loop {
            let length = whole.len() - self.rest.len();
            match self.tag()? {
                (_, 3) if open.len() == DEEPEST => {
                    return Err(format!("groups in it are nested deeper than {DEEPEST} levels").into());
                }
                (number, 3) => open.push(number),
                (number, 4) => match open.pop() {
                    Some(begun) if begun == number && open.is_empty() => return Ok(&whole[..length]),
                    Some(begun) if begun == number => {}
                    _ => return Err(format!("group {number} ends, and did not begin").into()),
                },
                (_, of_type) => _ = self.value(of_type)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, String> {
        let mut reader = Reader::new(message);
        std::iter::from_fn(|| reader.field().transpose()).collect::<Result<_, _>>().map_err(Bad::reason)
    }

    #[track_caller]
    fn refused(message: &[u8], expected: &str) {
        assert_eq!(fields(message).unwrap_err(), expected);
    }

    #[test]
    fn every_wire_type() {
        let message = [&[8, 0x96, 1, 0x11][..], &[1, 0, 0, 0, 0, 0, 0, 0x80], &[26, 2, b'h', b'i'], &[37, 1, 0, 0, 0]];
        let expected = vec![
            (1, Wire::Varint(150)),
            (2, Wire::Fixed64(0x8000_0000_0000_0001)),
            (3, Wire::Bytes(b"hi")),
            (4, Wire::Fixed32(1)),
        ];
        assert_eq!(fields(&message.concat()), Ok(expected));
        assert_eq!(fields(&[]), Ok(vec![]));
        // Group 1 with a group 2 and a number, then a field behind it.
        assert_eq!(
            fields(&[11, 19, 20, 8, 1, 12, 8, 7]),
            Ok(vec![(1, Wire::Group(&[19, 20, 8, 1])), (1, Wire::Varint(7))])
        );
    }

    #[test]
    fn what_is_no_message() {
        refused(&[8], CUT);
        refused(&[8, 0x80], CUT);
        refused(&[0x80], CUT);
        refused(&[26, 2, b'h'], CUT);
        refused(&[37, 1, 0, 0], CUT);
        refused(&[17, 1, 0, 0, 0, 0, 0, 0], CUT);
        refused(&[&[26][..], &[0xff; 9], &[1]].concat(), CUT);
        refused(&[&[8][..], &[0xff; 9], &[2]].concat(), "a number in it is longer than 64 bits");
        refused(&[&[8][..], &[0x80; 10], &[1]].concat(), "a number in it is longer than 64 bits");
        refused(&[0, 1], "0 is no number of a field");
        refused(&[0x80, 0x80, 0x80, 0x80, 0x10, 1], "536870912 is no number of a field");
        refused(&[14, 1], "6 is no wire type");
        refused(&[12], "group 1 ends, and did not begin");
        refused(&[11, 8, 1], CUT);
        refused(&[11, 20], "group 2 ends, and did not begin");
        let nested = |levels: usize| [vec![11; levels], vec![12; levels]].concat();
        assert_eq!(fields(&nested(100)).unwrap().len(), 1);
        refused(&nested(101), "groups in it are nested deeper than 100 levels");
        refused(&vec![11; 1 << 20], "groups in it are nested deeper than 100 levels");
    }
}
