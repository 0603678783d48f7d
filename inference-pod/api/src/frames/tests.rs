use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u16>(), btree_map("[a-z-]{1,8}", ".{0,20}", 0..4))
            .prop_map(|(status, headers)| Frame::Head(Head { status, headers })),
        (".{0,20}", ".{0,20}").prop_map(|(path, content_type)| Frame::Request(Request { path, content_type })),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Frame::Body(bytes.into())),
        (any::<u32>(), vec(any::<u8>(), 0..300))
            .prop_map(|(picture, bytes)| Frame::Snapshot(Snapshot { picture, bytes: bytes.into() })),
        Just(Frame::Moved),
        Just(Frame::End),
    ]
}

fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
    std::iter::from_fn(|| decoder.next_frame().transpose()).collect()
}

proptest! {
    #[test]
    fn frames_read_back_however_the_bytes_are_cut(frames in vec(frame(), 0..6), cut in 1..50_usize) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(cut) {
            decoder.push(piece);
            found.extend(all(&mut decoder).unwrap());
        }
        prop_assert_eq!(found, frames);
        prop_assert!(!decoder.is_within_frame());
    }

    #[test]
    fn garbage_is_an_error_or_waited_for_and_takes_no_more_memory_than_it_has_bytes(bytes in vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let _ = all(&mut decoder);
        prop_assert!(decoder.come.len() <= bytes.len() && decoder.come.capacity() <= 2 * bytes.len().max(64));
    }

    #[test]
    fn snapshots_that_are_skipped_go_by_and_the_rest_is_read(frames in vec(frame(), 0..6), cut in 1..50_usize) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(cut) {
            decoder.push(piece);
            loop {
                while decoder.coming_snapshot().is_some() {
                    decoder.skip();
                }
                let Some(frame) = decoder.next_frame().unwrap() else { break };
                found.push(frame);
            }
        }
        let rest: Vec<_> = frames.into_iter().filter(|frame| !matches!(frame, Frame::Snapshot(_))).collect();
        prop_assert_eq!(found, rest);
        prop_assert!(!decoder.is_within_frame());
    }

    #[test]
    fn a_body_in_frames_is_the_body(body in vec(any::<u8>(), 0..3)) {
        let body = Bytes::from(body.repeat(MAX_BODY_FRAME / 2 + 1));
        let joined: Vec<u8> = body_frames(&body).flat_map(|frame| match frame {
            Frame::Body(bytes) => { assert!(bytes.len() <= MAX_BODY_FRAME); bytes }
            frame => panic!("{frame:?}"),
        }).collect();
        prop_assert_eq!(joined, body);
    }
}

#[test]
fn a_frame_that_says_to_be_too_long_is_refused_by_its_first_five_bytes() {
    let mut decoder = Decoder::default();
    decoder.push(&[Frame::SNAPSHOT, 0xff, 0xff, 0xff, 0xff]);
    let expected = FrameError::TooLong { kind: 4, length: u32::MAX as usize, limit: MAX_SNAPSHOT + 4 };
    assert_eq!(decoder.next_frame(), Err(expected));
}

#[test]
fn an_unknown_kind_and_a_snapshot_of_no_picture_are_refused() {
    for (bytes, expected) in [([9, 0, 0, 0, 0], FrameError::Kind(9)), ([4, 0, 0, 0, 0], FrameError::TooShort(4))] {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame(), Err(expected));
    }
}
