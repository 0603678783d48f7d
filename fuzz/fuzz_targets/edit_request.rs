//! Bodies of edits, as a form and as JSON: refused as the client's fault, or read, and then the JSON that a gateway makes of
//! it reads back as the same request.

#![no_main]

use bytes::Bytes;
use easel_api::images::EditRequest;
use futures::FutureExt as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let body = Bytes::copy_from_slice(body);
    for kind in ["multipart/form-data; boundary=b", "application/json"] {
        match read(kind, body.clone()) {
            Ok(request) => {
                let json = request.to_json().expect("what was read can be written");
                assert_eq!(read("application/json", json.into()).expect("what was written can be read"), request);
            }
            Err(error) => assert!((400..500).contains(&error.status), "{error}"),
        }
    }
});

fn read(kind: &str, body: Bytes) -> Result<EditRequest, easel_api::error::ApiError> {
    EditRequest::read(kind, body).now_or_never().expect("a whole body needs no waiting")
}
