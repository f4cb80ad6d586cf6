//! Frames of argument vectors on a byte stream: the AMP framing of both sockets.
//!
//! One frame is a meta byte (version in the high nibble, argument count in the
//! low one), then each argument as a big-endian `u32` length and its bytes.
//! The frame itself has no length, so decoding is bounded here, before memory
//! is spent: a length that cannot be accepted is refused when it is read, not
//! when its bytes have arrived. What the bytes mean is [`super::axon`]'s.

use bytes::{Buf, Bytes, BytesMut};

/// The protocol version in the high nibble of the meta byte.
pub const VERSION: u8 = 1;

/// The most arguments a frame can carry: the low nibble of the meta byte.
pub const MAX_ARGS: usize = 15;

/// The most bytes of one request frame, headers included. A description with a
/// large environment is some hundred kilobytes. A larger frame is an error and
/// costs the sender its connection.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes of one reply frame, for clients: the full list of a thousand
/// processes with large environments. A larger frame is an error.
pub const MAX_REPLY_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of an argument's length.
const LENGTH_BYTES: usize = 4;

/// Why a stream is not a sequence of frames. The stream cannot be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is no meta byte of this protocol.
    #[error("frame of protocol version {0}, expected version {VERSION}")]
    Version(u8),
    /// The frame would be larger than the receiver takes.
    #[error("frame of at least {bytes} bytes, {limit} is the limit")]
    TooLarge {
        /// Bytes announced so far.
        bytes: usize,
        /// The receiver's bound.
        limit: usize,
    },
}

/// Returns the frame of `args`.
///
/// # Panics
///
/// With more than [`MAX_ARGS`] arguments or an argument of 4 GiB: every caller
/// builds its arguments itself, and PM2's messages have two.
pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    assert!(args.len() <= MAX_ARGS, "a frame has at most 15 arguments");
    let n_bytes = 1 + args
        .iter()
        .map(|arg| LENGTH_BYTES + arg.len())
        .sum::<usize>();
    let mut frame = Vec::with_capacity(n_bytes);
    frame.push(VERSION << 4 | args.len() as u8);
    for arg in args {
        let length = u32::try_from(arg.len()).expect("an argument is shorter than 4 GiB");
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(arg);
    }
    frame
}

/// Takes the next request frame off `stream`, or nothing if it is not complete;
/// bounded by [`MAX_REQUEST_BYTES`].
///
/// # Errors
///
/// [`FrameError`] as soon as the bytes at hand cannot become a frame.
pub fn decode(stream: &mut BytesMut) -> Result<Option<Vec<Bytes>>, FrameError> {
    decode_within(stream, MAX_REQUEST_BYTES)
}

/// Takes the next frame of at most `limit` bytes off `stream`; see [`decode`].
///
/// # Errors
///
/// [`FrameError`] as soon as the bytes at hand cannot become a frame.
pub fn decode_within(
    stream: &mut BytesMut,
    limit: usize,
) -> Result<Option<Vec<Bytes>>, FrameError> {
    let Some(&meta) = stream.first() else {
        return Ok(None);
    };
    if meta >> 4 != VERSION {
        return Err(FrameError::Version(meta >> 4));
    }
    let n_args = usize::from(meta & 0x0f);
    let mut end = 1;
    let mut lengths = [0; MAX_ARGS];
    for length in &mut lengths[..n_args] {
        let Some(header) = stream.get(end..end + LENGTH_BYTES) else {
            return Ok(None);
        };
        let header = header.try_into().expect("the slice has four bytes");
        *length = u32::from_be_bytes(header) as usize;
        end = end.saturating_add(LENGTH_BYTES).saturating_add(*length);
        if end > limit {
            return Err(FrameError::TooLarge { bytes: end, limit });
        }
    }
    if stream.len() < end {
        return Ok(None);
    }
    let mut frame = stream.split_to(end).freeze();
    frame.advance(1);
    let args = lengths[..n_args].iter().map(|&length| {
        frame.advance(LENGTH_BYTES);
        frame.split_to(length)
    });
    Ok(Some(args.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let arg = prop::collection::vec(any::<u8>(), 0..40);
        prop::collection::vec(prop::collection::vec(arg, 0..=MAX_ARGS), 0..6)
    }

    fn encode_owned(args: &[Vec<u8>]) -> Vec<u8> {
        encode(&args.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn a_frame_is_a_meta_byte_and_lengths_before_bytes() {
        assert_eq!(
            encode(&[b"ab", b"c"]),
            [0x12, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 1, b'c']
        );
        assert_eq!(encode(&[]), [0x10]);
    }

    #[test]
    fn a_wrong_version_is_refused_at_its_first_byte() {
        let mut stream = BytesMut::from(&[0x22][..]);
        assert_eq!(decode(&mut stream), Err(FrameError::Version(2)));
    }

    #[test]
    fn an_announced_giant_is_refused_before_its_bytes_arrive() {
        let mut stream = BytesMut::from(&[0x12, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(
            decode(&mut stream),
            Err(FrameError::TooLarge { .. })
        ));
        // The bound is of the whole frame: two halves do not slip through.
        let mut stream = BytesMut::from(&[0x12, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0, 6][..]);
        assert!(matches!(
            decode_within(&mut stream, 16),
            Err(FrameError::TooLarge {
                bytes: 21,
                limit: 16
            })
        ));
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            frames in frames(),
            cuts in prop::collection::vec(1usize..30, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|args| encode_owned(args)).collect();
            let mut stream = BytesMut::new();
            let mut decoded = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                stream.extend_from_slice(chunk);
                rest = after;
                while let Some(args) = decode(&mut stream).unwrap() {
                    decoded.push(args.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>());
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(stream.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = BytesMut::from(&bytes[..]);
            while let Ok(Some(args)) = decode_within(&mut stream, 128) {
                prop_assert!(args.len() <= MAX_ARGS);
            }
        }
    }
}
