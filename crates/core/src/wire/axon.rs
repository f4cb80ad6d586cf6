//! Typed arguments, and the three messages made of them: request, reply, event.
//!
//! An argument is text (`s:`), JSON (`j:`) or a blob (anything else). A request
//! carries its body first and an id of the client's choice last; the reply
//! returns that id byte for byte, whatever its type. An event is its name and
//! its payload. Which bodies make sense is [`super::rpc`]'s and [`super::bus`]'s.

use super::amp;
use bytes::Bytes;
use serde_json::Value;

const TEXT: &[u8] = b"s:";
const JSON: &[u8] = b"j:";

/// One typed argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// UTF-8 text.
    Text(String),
    /// A JSON value; `undefined` arrives as null.
    Json(Value),
    /// Bytes without a type.
    Blob(Bytes),
}

/// A request as it came in, its id untouched.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// The last argument, to be returned byte for byte.
    pub id: Bytes,
    /// The first argument; text becomes a JSON string, a blob null.
    pub body: Value,
}

/// Why arguments make no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A message needs two arguments.
    #[error("message of {0} arguments, expected 2")]
    TooFew(usize),
    /// An argument that says it is JSON is not.
    #[error("argument is not json")]
    Json(#[source] serde_json::Error),
    /// An argument that says it is text is not UTF-8.
    #[error("argument is not utf-8")]
    Text(#[source] std::str::Utf8Error),
}

impl Arg {
    /// Returns the value of an argument's bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not what their prefix says.
    pub fn decode(bytes: &Bytes) -> Result<Arg, MessageError> {
        match bytes.get(..2) {
            Some(TEXT) => std::str::from_utf8(&bytes[2..])
                .map(|text| Arg::Text(text.to_owned()))
                .map_err(MessageError::Text),
            Some(JSON) => serde_json::from_slice(&bytes[2..])
                .map(Arg::Json)
                .map_err(MessageError::Json),
            Some(_) | None => Ok(Arg::Blob(bytes.clone())),
        }
    }

    /// Returns the argument's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Arg::Text(text) => text_arg(text),
            Arg::Json(value) => json_arg(value),
            Arg::Blob(bytes) => bytes.to_vec(),
        }
    }

    fn into_json(self) -> Value {
        match self {
            Arg::Text(text) => Value::String(text),
            Arg::Json(value) => value,
            Arg::Blob(_) => Value::Null,
        }
    }
}

/// Returns the request of a frame's arguments.
///
/// # Errors
///
/// With fewer than two arguments, or a first one that is not what it says.
pub fn request(args: &[Bytes]) -> Result<Incoming, MessageError> {
    let [body, .., id] = args else {
        return Err(MessageError::TooFew(args.len()));
    };
    Ok(Incoming {
        id: id.clone(),
        body: Arg::decode(body)?.into_json(),
    })
}

/// Returns the frame of a request; `id` is `<client pid>:<counter>` by custom.
pub fn request_frame(body: &Value, id: &str) -> Vec<u8> {
    amp::encode(&[&json_arg(body), &text_arg(id)])
}

/// Returns the frame of a reply to the request that carried `id`.
pub fn reply_frame(body: &Value, id: &[u8]) -> Vec<u8> {
    amp::encode(&[&json_arg(body), id])
}

/// As [`reply_frame`], with a body that is JSON text already.
pub fn reply_frame_of_text(body: &str, id: &[u8]) -> Vec<u8> {
    amp::encode(&[&[b"j:", body.as_bytes()].concat(), id])
}

/// Returns a reply's body and the id it answers.
///
/// # Errors
///
/// As [`request`].
pub fn reply(args: &[Bytes]) -> Result<Incoming, MessageError> {
    request(args)
}

/// Returns the frame of an event of the bus.
pub fn event_frame(name: &str, payload: &Value) -> Vec<u8> {
    amp::encode(&[&text_arg(name), &json_arg(payload)])
}

/// Returns an event's name and payload.
///
/// # Errors
///
/// With fewer than two arguments, or one that is not what it says.
pub fn event(args: &[Bytes]) -> Result<(String, Value), MessageError> {
    let [name, payload, ..] = args else {
        return Err(MessageError::TooFew(args.len()));
    };
    let name = match Arg::decode(name)? {
        Arg::Text(name) => name,
        Arg::Json(value) => value.to_string(),
        Arg::Blob(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    Ok((name, Arg::decode(payload)?.into_json()))
}

fn text_arg(text: &str) -> Vec<u8> {
    [TEXT, text.as_bytes()].concat()
}

fn json_arg(value: &Value) -> Vec<u8> {
    let mut bytes = JSON.to_vec();
    serde_json::to_writer(&mut bytes, value).expect("a json value always serializes into memory");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use serde_json::json;

    fn decode_one(frame: &[u8]) -> Vec<Bytes> {
        amp::decode(&mut BytesMut::from(frame)).unwrap().unwrap()
    }

    /// The bytes of the example in the compatibility reference, 5.1.
    #[test]
    fn a_ping_and_its_reply_are_the_reference_bytes() {
        let body = r#"{"type":"call","method":"ping","args":[{}]}"#;
        let mut expected = b"\x12\x00\x00\x00\x2dj:".to_vec();
        expected.extend_from_slice(body.as_bytes());
        expected.extend_from_slice(b"\x00\x00\x00\x0as:424242:0");
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(request_frame(&value, "424242:0"), expected);

        let incoming = request(&decode_one(&expected)).unwrap();
        assert_eq!(incoming.body, value);
        let mut expected = b"\x12\x00\x00\x00\x1bj:{\"args\":[{\"msg\":\"pong\"}]}".to_vec();
        expected.extend_from_slice(b"\x00\x00\x00\x0as:424242:0");
        let reply = reply_frame(&json!({"args": [{"msg": "pong"}]}), &incoming.id);
        assert_eq!(reply, expected);
    }

    #[test]
    fn an_id_of_any_type_comes_back_byte_for_byte() {
        for id in [&b"s:1:2"[..], b"j: [1, 2]", b"\xff\x00", b"x"] {
            let frame = amp::encode(&[b"j:{}", id]);
            let incoming = request(&decode_one(&frame)).unwrap();
            assert_eq!(&incoming.id[..], id);
            let answer = decode_one(&reply_frame(&Value::Null, &incoming.id));
            assert_eq!(&answer[1][..], id);
        }
    }

    #[test]
    fn broken_messages_are_errors() {
        for args in [
            &[][..],
            &[&b"j:{}"[..]],
            &[b"j:{", b"s:1"],
            &[b"s:\xff", b"s:1"],
        ] {
            let frame = amp::encode(args);
            assert!(request(&decode_one(&frame)).is_err(), "{args:?}");
        }
    }

    #[test]
    fn an_event_is_its_name_and_payload() {
        let frame = event_frame("log:out", &json!({"at": 1}));
        assert_eq!(&frame[..10], b"\x12\x00\x00\x00\x09s:log");
        let back = event(&decode_one(&frame)).unwrap();
        assert_eq!(back, ("log:out".to_owned(), json!({"at": 1})));
    }

    proptest! {
        #[test]
        fn arguments_survive_the_wire(text in ".*", number in any::<i64>()) {
            for arg in [Arg::Text(text.clone()), Arg::Json(json!([text, number]))] {
                prop_assert_eq!(Arg::decode(&Bytes::from(arg.encode())).unwrap(), arg);
            }
        }

        #[test]
        fn arbitrary_arguments_never_panic(
            args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
        ) {
            let args: Vec<Bytes> = args.into_iter().map(Bytes::from).collect();
            let _ = request(&args);
            let _ = event(&args);
        }
    }
}
