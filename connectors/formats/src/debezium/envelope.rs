//! Where in a JSON message its change is, and its schema, if Kafka Connect's converter wrote it (`schemas.enable`).
//!
//! ```text
//!  { "schema": { … }, "payload": { "before": …, "after": …, "op": … } }      an object that begins with one of those two
//!  { "before": …, "after": …, "op": … }                                      any other
//! ```
//!
//! Only where members begin and end is looked at; that they are JSON is for those to say who read them. Other members are
//! passed over, and of two of one name the last counts.
//!
//! Invariant: what is found lies within the message, and nothing but blanks lies around the object.

/// The parts of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// What describes the change; empty: nothing does.
    pub(crate) schema: &'a [u8],
    pub(crate) change: &'a [u8],
}

/// Finds them, or says why they are not there.
pub(crate) fn parts(message: &[u8]) -> Result<Parts<'_>, String> {
    let mut rest = Rest { message, at: 0 };
    if !rest.begins_envelope() {
        return Ok(Parts { schema: &[], change: message });
    }
    let (mut schema, mut change): (&[u8], Option<&[u8]>) = (&[], None);
    loop {
        let name = rest.value()?;
        rest.expect(b':')?;
        let value = rest.value()?;
        match name {
            br#""schema""# => schema = value,
            br#""payload""# => change = Some(value),
            _ => {}
        }
        match rest.next() {
            Some(b',') => {}
            Some(b'}') => break,
            Some(_) => return Err(NO_OBJECT.into()),
            None => return Err(ENDS_EARLY.into()),
        }
    }
    if rest.next().is_some() {
        return Err("something follows the JSON object".into());
    }
    let change = change.ok_or("it has a schema and no payload")?;
    Ok(Parts { schema: if schema == b"null" { &[] } else { schema }, change })
}

const ENDS_EARLY: &str = "the JSON object ends early";
const NO_OBJECT: &str = "it is no JSON object";

/// What is left of a message.
struct Rest<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    /// Whether it is an object whose first member is the schema or the payload. If so that member is next.
    fn begins_envelope(&mut self) -> bool {
        let opens = self.next() == Some(b'{');
        self.blanks();
        let rest = &self.message[self.at..];
        opens && (rest.starts_with(br#""schema""#) || rest.starts_with(br#""payload""#))
    }

    fn blanks(&mut self) {
        while self.message.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte that is no blank.
    fn next(&mut self) -> Option<u8> {
        self.blanks();
        let byte = *self.message.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), String> {
        match self.next() {
            Some(byte) if byte == wanted => Ok(()),
            Some(_) => Err(NO_OBJECT.into()),
            None => Err(ENDS_EARLY.into()),
        }
    }

    /// Up to the end of the value that is next.
    fn value(&mut self) -> Result<&'a [u8], String> {
        self.blanks();
        let from = self.at;
        match self.message.get(from) {
            Some(b'"') => self.text()?,
            Some(b'{' | b'[') => self.nested()?,
            _ => {
                let ends = |byte: &u8| {
                    matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"') || byte.is_ascii_whitespace()
                };
                let rest = &self.message[from..];
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        match self.at {
            at if at > from => Ok(&self.message[from..at.min(self.message.len())]),
            at if at < self.message.len() => Err(NO_OBJECT.into()),
            _ => Err(ENDS_EARLY.into()),
        }
    }

    /// Behind the object or list that begins here.
    fn nested(&mut self) -> Result<(), String> {
        let mut depth = 0usize;
        while let Some(byte) = self.message.get(self.at) {
            match byte {
                b'"' => {
                    self.text()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
        Err(ENDS_EARLY.into())
    }

    /// Behind the text that begins here.
    fn text(&mut self) -> Result<(), String> {
        self.at += 1;
        while let Some(byte) = self.message.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return Ok(());
            }
        }
        Err(ENDS_EARLY.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn found(message: &str) -> Result<(&str, &str), String> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        parts(message.as_bytes()).map(|Parts { schema, change }| (text(schema), text(change)))
    }

    #[test]
    fn with_and_without_an_envelope() {
        for plain in [r#"{"op": "c", "payload": {}}"#, "{}", "", " [", r#""schema""#] {
            assert_eq!(found(plain), Ok(("", plain)));
        }
        assert_eq!(
            found(r#" {"schema":{"a":["}]\""]},"payload":{"op":"c"}} "#),
            Ok((r#"{"a":["}]\""]}"#, r#"{"op":"c"}"#))
        );
        assert_eq!(found("{ \"payload\" : 1.5e3 ,\n \"schema\" : null , \"more\": [true] }\n"), Ok(("", "1.5e3")));
        assert_eq!(found(r#"{"payload":1,"payload":"2"}"#), Ok(("", r#""2""#)));
    }

    #[test]
    fn what_is_no_envelope() {
        for early in [r#"{"schema""#, r#"{"schema":"#, r#"{"schema":{"a""#, r#"{"schema":1"#, r#"{"schema":"\"#] {
            assert_eq!(found(early), Err(ENDS_EARLY.to_string()), "{early}");
        }
        assert_eq!(found(r#"{"schema":1}"#), Err("it has a schema and no payload".into()));
        assert_eq!(found(r#"{"payload":1} x"#), Err("something follows the JSON object".into()));
        for none in
            [r#"{"payload":1 2}"#, r#"{"payload" 1}"#, r#"{"payload":,}"#, r#"{"payload":1,}"#, r#"{"payload":1]"#]
        {
            assert_eq!(found(none), Err(NO_OBJECT.into()), "{none}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_what_was_put_in(texts in proptest::collection::vec(any::<String>(), 3), pretty: bool, last: bool) {
            let schema = json!({"fields": [texts[0], {texts[1].clone(): null}], "more": [[], {}]});
            let change = json!({"op": "c", "after": {texts[2].clone(): [1.5, texts[0]]}});
            let member = |name: &str, value: &Value| {
                format!("{}: {}", json!(name), if pretty { format!("{value:#}") } else { value.to_string() })
            };
            let mut members = [member("schema", &schema), member("payload", &change)];
            if last {
                members.swap(0, 1);
            }
            let message = format!("{{{}}}", members.join(","));
            let (of_schema, of_change) = found(&message).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(of_schema).unwrap(), schema);
            prop_assert_eq!(serde_json::from_str::<Value>(of_change).unwrap(), change);
        }

        #[test]
        fn no_bytes_make_it_panic(begin in prop_oneof![Just(""), Just("{\"schema\":"), Just("{\"payload\":")], bytes: Vec<u8>) {
            let message = [begin.as_bytes(), &bytes].concat();
            if let Ok(Parts { change, .. }) = parts(&message) {
                prop_assert!(change.len() <= message.len());
            }
        }
    }
}
