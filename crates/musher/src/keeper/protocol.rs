//! What keeper and daemon say to each other, as bytes.
//!
//! One message is one packet of a SOCK_SEQPACKET socket: a kind byte, then its
//! payload of fixed form, numbers little-endian. A keeper may be older than the
//! daemon it serves, so the form never changes: kinds are only added, and an
//! unknown kind is ignored by either side. Nothing here touches a socket or
//! allocates.
//!
//! ```text
//! daemon → keeper                      keeper → daemon
//!   1 PARK name        + descriptor      65 GIVE name       + descriptor
//!   2 DROP name                          66 EXITED pid:u32 how:u8 value:i32
//!   3 DROP_PREFIX prefix                 67 END version:u8
//!   4 READY                              68 REFUSED name
//!   5 QUIT                               69 KEEPER          + its pidfd
//!   6 HELLO version:u8                   70 PONG
//!   7 HEARD pid:u32                      71 GO
//!   8 PING                               72 WHY text
//!   9 NEXT piece of a path
//!  10 HAND_OVER
//! ```
//! A daemon says HELLO first. The keeper sends GIVE for each parked descriptor,
//! KEEPER, WHY if an executable was given up for another, EXITED for each orphan
//! whose end no daemon has stored, and END with its version; after END it sends
//! EXITED as orphans end, and REFUSED for a PARK it had no room for. It forgets
//! an end when it is HEARD.
//!
//! An update is NEXT for each piece of the path of another executable, then
//! HAND_OVER, which the keeper answers with GO: when this daemon ends, the other
//! executable is started.

use musher_core::exit::{ExitStatus, Signal};

/// Longest name of a parked descriptor, in bytes.
pub(crate) const MAX_NAME: usize = 200;

/// Longest message.
pub(crate) const MAX_MESSAGE: usize = 1 + MAX_NAME;

/// The version that HELLO and END tell: from 2 on there are the kinds from 6
/// and from 69 on.
pub(crate) const VERSION: u8 = 2;

/// The oldest version a daemon can work with: an older keeper cannot hand over
/// to another executable, and forgets ends before they are stored.
pub(crate) const OLDEST_KEEPER: u8 = 2;

const PARK: u8 = 1;
const DROP: u8 = 2;
const DROP_PREFIX: u8 = 3;
const READY: u8 = 4;
const QUIT: u8 = 5;
const HELLO: u8 = 6;
const HEARD: u8 = 7;
const PING: u8 = 8;
const NEXT: u8 = 9;
const HAND_OVER: u8 = 10;
const GIVE: u8 = 65;
const EXITED: u8 = 66;
const END: u8 = 67;
const REFUSED: u8 = 68;
const KEEPER: u8 = 69;
const PONG: u8 = 70;
const GO: u8 = 71;
const WHY: u8 = 72;

const HOW_CODE: u8 = 0;
const HOW_SIGNAL: u8 = 1;
const HOW_UNKNOWN: u8 = 2;

/// A name of 1 to [`MAX_NAME`] bytes of UTF-8, without an allocation.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    len: u8,
    bytes: [u8; MAX_NAME],
}

/// What the daemon says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToKeeper {
    /// Keep the descriptor that comes with this; replaces one of that name.
    Park(Name),
    /// Close the descriptor of this name, if there is one.
    Drop(Name),
    /// Close every descriptor whose name begins so.
    DropPrefix(Name),
    /// The daemon serves.
    Ready,
    /// The daemon will end for good: do not start another.
    Quit,
    /// The daemon speaks this version. One that does not say it speaks 1.
    Hello(u8),
    /// The end of this orphan is stored: it need not be told again.
    Heard(u32),
    /// Asks for PONG.
    Ping,
    /// A further piece of the path of the executable that comes next.
    Next(Name),
    /// The daemon will end: start the executable of NEXT in its place.
    HandOver,
}

/// What the keeper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToDaemon {
    /// A parked descriptor comes with this; the keeper keeps its own.
    Give(Name),
    /// An orphan ended.
    Exited {
        /// Its pid.
        pid: u32,
        /// How.
        status: ExitStatus,
    },
    /// Everything was handed over, in this version.
    End(u8),
    /// There was no room for this descriptor.
    Refused(Name),
    /// With this comes a pidfd of the keeper.
    Keeper,
    /// The answer to PING.
    Pong,
    /// The answer to HAND_OVER: the daemon may end.
    Go,
    /// An update was undone, for this reason.
    Why(Name),
}

/// A name that cannot be one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a descriptor's name has {0} bytes, not 1 to {MAX_NAME}")]
pub(crate) struct NameError(pub(crate) usize);

/// The bytes of a message.
pub(crate) struct Encoded {
    len: usize,
    bytes: [u8; MAX_MESSAGE],
}

impl Name {
    /// Returns the longest beginning of a text that can be a name, and the
    /// rest; `None` for an empty text.
    pub(crate) fn first_of(text: &str) -> Option<(Name, &str)> {
        let longest = text.len().min(MAX_NAME);
        let end = (0..=longest).rfind(|at| text.is_char_boundary(*at))?;
        let (first, rest) = text.split_at(end);
        Some((Name::try_from(first).ok()?, rest))
    }

    /// Returns the name as text.
    pub(crate) fn as_str(&self) -> &str {
        // Only `try_from` and `from_bytes` make names, both from UTF-8.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Returns the name as bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn from_bytes(bytes: &[u8]) -> Option<Name> {
        Name::try_from(std::str::from_utf8(bytes).ok()?).ok()
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Name, NameError> {
        let error = NameError(text.len());
        let len = u8::try_from(text.len()).map_err(|_| NameError(text.len()))?;
        let mut bytes = [0; MAX_NAME];
        match bytes.get_mut(..text.len()) {
            Some(room) if len > 0 => room.copy_from_slice(text.as_bytes()),
            Some(_) | None => return Err(error),
        }
        Ok(Name { len, bytes })
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Encoded {
    fn new(kind: u8, payload: &[u8]) -> Encoded {
        let mut bytes = [0; MAX_MESSAGE];
        bytes[0] = kind;
        bytes[1..=payload.len()].copy_from_slice(payload);
        Encoded {
            len: 1 + payload.len(),
            bytes,
        }
    }

    /// Returns the packet.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl ToKeeper {
    /// Returns the packet of this message.
    pub(crate) fn encode(&self) -> Encoded {
        match self {
            ToKeeper::Park(name) => Encoded::new(PARK, name.as_bytes()),
            ToKeeper::Drop(name) => Encoded::new(DROP, name.as_bytes()),
            ToKeeper::DropPrefix(prefix) => Encoded::new(DROP_PREFIX, prefix.as_bytes()),
            ToKeeper::Ready => Encoded::new(READY, &[]),
            ToKeeper::Quit => Encoded::new(QUIT, &[]),
            ToKeeper::Hello(version) => Encoded::new(HELLO, &[*version]),
            ToKeeper::Heard(pid) => Encoded::new(HEARD, &pid.to_le_bytes()),
            ToKeeper::Ping => Encoded::new(PING, &[]),
            ToKeeper::Next(piece) => Encoded::new(NEXT, piece.as_bytes()),
            ToKeeper::HandOver => Encoded::new(HAND_OVER, &[]),
        }
    }

    /// Returns the message of a packet; `None` for one that is none.
    pub(crate) fn decode(packet: &[u8]) -> Option<ToKeeper> {
        let (kind, payload) = packet.split_first()?;
        match *kind {
            PARK => Name::from_bytes(payload).map(ToKeeper::Park),
            DROP => Name::from_bytes(payload).map(ToKeeper::Drop),
            DROP_PREFIX => Name::from_bytes(payload).map(ToKeeper::DropPrefix),
            READY if payload.is_empty() => Some(ToKeeper::Ready),
            QUIT if payload.is_empty() => Some(ToKeeper::Quit),
            HELLO => match payload {
                [version] => Some(ToKeeper::Hello(*version)),
                _ => None,
            },
            HEARD => {
                let pid = payload.try_into().ok()?;
                Some(ToKeeper::Heard(u32::from_le_bytes(pid)))
            }
            PING if payload.is_empty() => Some(ToKeeper::Ping),
            NEXT => Name::from_bytes(payload).map(ToKeeper::Next),
            HAND_OVER if payload.is_empty() => Some(ToKeeper::HandOver),
            _ => None,
        }
    }
}

impl ToDaemon {
    /// Returns the packet of this message.
    pub(crate) fn encode(&self) -> Encoded {
        match self {
            ToDaemon::Give(name) => Encoded::new(GIVE, name.as_bytes()),
            ToDaemon::Exited { pid, status } => Encoded::new(EXITED, &exit_bytes(*pid, *status)),
            ToDaemon::End(version) => Encoded::new(END, &[*version]),
            ToDaemon::Refused(name) => Encoded::new(REFUSED, name.as_bytes()),
            ToDaemon::Keeper => Encoded::new(KEEPER, &[]),
            ToDaemon::Pong => Encoded::new(PONG, &[]),
            ToDaemon::Go => Encoded::new(GO, &[]),
            ToDaemon::Why(text) => Encoded::new(WHY, text.as_bytes()),
        }
    }

    /// Returns the message of a packet; `None` for one that is none.
    pub(crate) fn decode(packet: &[u8]) -> Option<ToDaemon> {
        let (kind, payload) = packet.split_first()?;
        match *kind {
            GIVE => Name::from_bytes(payload).map(ToDaemon::Give),
            EXITED => exit_from(payload),
            END => match payload {
                [version] => Some(ToDaemon::End(*version)),
                _ => None,
            },
            REFUSED => Name::from_bytes(payload).map(ToDaemon::Refused),
            KEEPER if payload.is_empty() => Some(ToDaemon::Keeper),
            PONG if payload.is_empty() => Some(ToDaemon::Pong),
            GO if payload.is_empty() => Some(ToDaemon::Go),
            WHY => Name::from_bytes(payload).map(ToDaemon::Why),
            _ => None,
        }
    }
}

fn exit_bytes(pid: u32, status: ExitStatus) -> [u8; 9] {
    let (how, value) = match status {
        ExitStatus::Code(code) => (HOW_CODE, code),
        ExitStatus::Signal(Signal(number)) => (HOW_SIGNAL, number),
        ExitStatus::Unknown => (HOW_UNKNOWN, 0),
    };
    let mut bytes = [0; 9];
    bytes[..4].copy_from_slice(&pid.to_le_bytes());
    bytes[4] = how;
    bytes[5..].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn exit_from(payload: &[u8]) -> Option<ToDaemon> {
    let bytes: [u8; 9] = payload.try_into().ok()?;
    let [p0, p1, p2, p3, how, v0, v1, v2, v3] = bytes;
    let value = i32::from_le_bytes([v0, v1, v2, v3]);
    let status = match how {
        HOW_CODE => ExitStatus::Code(value),
        HOW_SIGNAL => ExitStatus::Signal(Signal(value)),
        HOW_UNKNOWN => ExitStatus::Unknown,
        _ => return None,
    };
    let pid = u32::from_le_bytes([p0, p1, p2, p3]);
    Some(ToDaemon::Exited { pid, status })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::try_from(text).unwrap()
    }

    #[test]
    fn messages_to_the_keeper_have_fixed_bytes() {
        for (message, bytes) in [
            (ToKeeper::Park(name("a/out")), &b"\x01a/out"[..]),
            (ToKeeper::Drop(name("a")), b"\x02a"),
            (ToKeeper::DropPrefix(name("run 7 ")), b"\x03run 7 "),
            (ToKeeper::Ready, b"\x04"),
            (ToKeeper::Quit, b"\x05"),
            (ToKeeper::Hello(2), b"\x06\x02"),
            (ToKeeper::Heard(0x0102_0304), b"\x07\x04\x03\x02\x01"),
            (ToKeeper::Ping, b"\x08"),
            (ToKeeper::Next(name("/usr/")), b"\x09/usr/"),
            (ToKeeper::HandOver, b"\x0a"),
        ] {
            assert_eq!(message.encode().as_bytes(), bytes);
            assert_eq!(ToKeeper::decode(bytes), Some(message));
        }
    }

    #[test]
    fn messages_to_the_daemon_have_fixed_bytes() {
        let exited = |status| ToDaemon::Exited {
            pid: 0x0102_0304,
            status,
        };
        for (message, bytes) in [
            (ToDaemon::Give(name("é")), &b"\x41\xc3\xa9"[..]),
            (
                exited(ExitStatus::Code(7)),
                b"\x42\x04\x03\x02\x01\x00\x07\0\0\0",
            ),
            (
                exited(ExitStatus::Signal(Signal::KILL)),
                b"\x42\x04\x03\x02\x01\x01\x09\0\0\0",
            ),
            (
                exited(ExitStatus::Unknown),
                b"\x42\x04\x03\x02\x01\x02\0\0\0\0",
            ),
            (ToDaemon::End(1), b"\x43\x01"),
            (ToDaemon::Refused(name("x")), b"\x44x"),
            (ToDaemon::Keeper, b"\x45"),
            (ToDaemon::Pong, b"\x46"),
            (ToDaemon::Go, b"\x47"),
            (ToDaemon::Why(name("it ended")), b"\x48it ended"),
        ] {
            assert_eq!(message.encode().as_bytes(), bytes);
            assert_eq!(ToDaemon::decode(bytes), Some(message));
        }
    }

    #[test]
    fn names_are_bounded_text() {
        assert_eq!(name(&"n".repeat(200)).as_str().len(), 200);
        for len in [0, 201, 255, 256, 70_000] {
            assert_eq!(
                Name::try_from("n".repeat(len).as_str()),
                Err(NameError(len))
            );
        }
    }

    #[test]
    fn a_long_path_is_cut_into_names_and_no_letter_is() {
        let path = "/é".repeat(300);
        let (mut rest, mut whole) = (path.as_str(), String::new());
        while let Some((piece, further)) = Name::first_of(rest) {
            whole.push_str(piece.as_str());
            rest = further;
        }
        assert_eq!(whole, path);
        assert_eq!(Name::first_of(""), None);
    }

    #[test]
    fn what_is_no_message_is_none() {
        let too_long = [&[PARK][..], &[b'n'; 201]].concat();
        for packet in [
            &b""[..],
            b"\0",
            b"\x01",
            b"\x01\xff",
            &too_long,
            b"\x04x",
            b"\x05x",
            b"\x06",
            b"\x06\x01\x01",
            b"\x07\x01\0\0",
            b"\x08x",
            b"\x09",
            b"\x0ax",
            b"\x0b",
            b"\x41",
            b"\x42",
            b"\x42\x01\0\0\0\x03\0\0\0\0",
            b"\x42\x01\0\0\0\0\0\0\0",
            b"\x43",
            b"\x43\x01\x01",
            b"\x45x",
            b"\x46x",
            b"\x47x",
            b"\x48",
            b"\xff",
        ] {
            assert_eq!(ToKeeper::decode(packet), None, "{packet:?}");
            assert_eq!(ToDaemon::decode(packet), None, "{packet:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic_and_encode_back(
            packet in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..210),
        ) {
            if let Some(message) = ToKeeper::decode(&packet) {
                let encoded = message.encode();
                proptest::prop_assert_eq!(encoded.as_bytes(), &packet[..]);
            }
            if let Some(message) = ToDaemon::decode(&packet) {
                let encoded = message.encode();
                proptest::prop_assert_eq!(ToDaemon::decode(encoded.as_bytes()), Some(message));
            }
        }
    }
}
