//! Pictures that clients send: refused with a reason that blames the picture, or decoded to exactly the size asked for.

#![no_main]

use easel_api::images::PictureFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(file) = PictureFile::new("image", file.to_vec().into()) else { return };
    let size = easel_api::ImageSize::new(32, 16).expect("a size");
    match easel_inference::server::decode_picture(&file, size) {
        Ok(picture) => assert_eq!(picture.rgb.len(), 32 * 16 * 3),
        Err(error) => assert_eq!((error.status, error.param.as_deref()), (400, Some("image"))),
    }
});
