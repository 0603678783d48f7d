use std::fs;

use easel_api::engine::RefusalReason;
use proptest::prelude::*;

use super::*;

fn make() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model_index.json"), "{}").unwrap();
    fs::create_dir(folder.path().join("unet")).unwrap();
    fs::write(folder.path().join("unet/model.safetensors"), vec![7; 3000]).unwrap();
    folder
}

fn digest(folder: &Path) -> String {
    Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string()
}

fn folder(path: &str, digest: &str, watch: impl Fn(u64, u64) -> bool + Send + Sync) -> Result<Verified, Stopped> {
    Files::unproved(path, digest, Box::new(watch))?.prove()
}

fn reason(path: &Path, digest: &str) -> RefusalReason {
    match folder(path.to_str().unwrap(), digest, |_, _| true) {
        Err(Stopped::Refused(refusal)) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_named_bytes_are_verified_and_counted() {
    let made = make();
    let last = Mutex::new((0, 0));
    let verified = folder(made.path().to_str().unwrap(), &digest(made.path()), |done, total| {
        *last.lock().unwrap() = (done, total);
        true
    });
    assert_eq!(verified, Ok(Verified { total_bytes: 3002, weight_bytes: 3000 }));
    assert_eq!(*last.lock().unwrap(), (3002, 3002));
}

#[test]
fn one_changed_byte_is_a_mismatch() {
    let made = make();
    let digest = digest(made.path());
    let mut bytes = vec![7; 3000];
    bytes[2999] = 8;
    fs::write(made.path().join("unet/model.safetensors"), bytes).unwrap();
    assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
}

#[test]
fn an_added_or_renamed_file_is_a_mismatch() {
    let made = make();
    let digest = digest(made.path());
    fs::write(made.path().join("unet/extra.json"), "").unwrap();
    assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
    fs::rename(made.path().join("unet/extra.json"), made.path().join("unet/renamed.json")).unwrap();
    assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
}

#[test]
fn nothing_at_the_path_and_a_file_at_the_path_are_not_found() {
    let made = make();
    let digest = digest(made.path());
    for path in ["gone", "model_index.json"] {
        assert_eq!(reason(&made.path().join(path), &digest), RefusalReason::NotFound);
    }
    assert_eq!(reason(Path::new("models/x"), &digest), RefusalReason::NotFound);
}

#[test]
fn pickles_are_refused_whatever_their_digest() {
    for name in ["unet/diffusion_pytorch_model.bin", "model.CKPT", "unet/a.pt"] {
        let made = make();
        fs::write(made.path().join(name), "x").unwrap();
        assert_eq!(reason(made.path(), &digest(made.path())), RefusalReason::UnsafeFormat, "{name}");
    }
}

#[test]
fn what_is_not_a_digest_is_refused_before_a_byte_is_read() {
    let made = make();
    let digest = digest(made.path()).to_uppercase();
    assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
}

#[test]
fn verification_stops_when_the_checkpoint_is_not_wanted_any_more() {
    let made = make();
    let path = made.path().to_str().unwrap();
    assert_eq!(folder(path, &digest(made.path()), |_, _| false), Err(Stopped::Cancelled));
}

/// What a loader does that wants the index and the second half of the weights.
fn load(files: &Files) -> io::Result<Vec<u8>> {
    let index = files.read("model_index.json")?;
    let weights = files.open("unet/model.safetensors")?;
    let next = AtomicU64::new(0);
    let used = Mutex::new(vec![0; 1500]);
    std::thread::scope(|scope| {
        let work = || -> io::Result<()> {
            let mut part = vec![0; 100];
            loop {
                let offset = next.fetch_add(100, Ordering::Relaxed);
                if offset >= weights.size() {
                    return Ok(());
                }
                std::os::unix::fs::FileExt::read_exact_at(weights.file(), &mut part, offset)?;
                if let Some(at) = offset.checked_sub(1500) {
                    used.lock().unwrap()[at as usize..][..100].copy_from_slice(&part);
                }
                weights.hash(offset, &part)?;
            }
        };
        let other = scope.spawn(work);
        work().and(other.join().unwrap())
    })?;
    Ok([index, used.into_inner().unwrap()].concat())
}

fn unproved<'a>(made: &Path, digest: &str) -> Files<'a> {
    Files::unproved(made.to_str().unwrap(), digest, Box::new(|_, _| true)).unwrap()
}

fn proof_reason(proved: Result<Verified, Stopped>) -> RefusalReason {
    match proved {
        Err(Stopped::Refused(refusal)) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_read_in_parts_by_several_threads_is_proved_without_reading_it_again() {
    let made = make();
    let files = unproved(made.path(), &digest(made.path()));
    let loaded = load(&files).unwrap();
    // What was hashed is what was loaded, not what lies there now.
    fs::write(made.path().join("unet/model.safetensors"), vec![8; 3000]).unwrap();
    assert_eq!(files.prove(), Ok(Verified { total_bytes: 3002, weight_bytes: 3000 }));
    assert_eq!(loaded, [b"{}".as_slice(), &[7; 1500]].concat());
}

proptest! {
    /// Wherever it is: in what is used, in what is not, in what is never opened.
    #[test]
    fn a_flipped_bit_anywhere_is_a_mismatch(at in 0_usize..3102, bit in 0_u8..8) {
        let made = make();
        fs::write(made.path().join("README.md"), [1; 100]).unwrap();
        let digest = digest(made.path());
        let (file, at) = match at {
            0..2 => ("model_index.json", at),
            2..3002 => ("unet/model.safetensors", at - 2),
            _ => ("README.md", at - 3002),
        };
        let mut bytes = fs::read(made.path().join(file)).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(made.path().join(file), bytes).unwrap();
        let files = unproved(made.path(), &digest);
        load(&files).unwrap();
        prop_assert_eq!(proof_reason(files.prove()), RefusalReason::DigestMismatch);
    }
}

#[test]
fn a_file_that_shrinks_or_grows_while_it_is_loaded_is_a_mismatch() {
    for bytes in [2999, 3001] {
        let made = make();
        let files = unproved(made.path(), &digest(made.path()));
        fs::write(made.path().join("unet/model.safetensors"), vec![7; bytes]).unwrap();
        load(&files).unwrap_err();
        assert_eq!(proof_reason(files.prove_unused()), RefusalReason::DigestMismatch);
    }
}

#[test]
fn a_file_that_is_not_the_same_when_it_is_read_again_is_a_mismatch() {
    let made = make();
    let files = unproved(made.path(), &digest(made.path()));
    fs::write(made.path().join("model_index.json"), "[]").unwrap();
    files.read("model_index.json").unwrap();
    fs::write(made.path().join("model_index.json"), "{}").unwrap();
    files.read("model_index.json").unwrap();
    assert_eq!(proof_reason(files.prove()), RefusalReason::DigestMismatch);
}

#[test]
fn what_was_opened_and_not_read_to_its_end_proves_nothing() {
    let made = make();
    let files = unproved(made.path(), &digest(made.path()));
    let weights = files.open("unet/model.safetensors").unwrap();
    weights.hash(0, &[7; 2999]).unwrap();
    assert!(files.prove().is_err());
    // A loader that gave up has used nothing, and the bytes are right.
    assert!(files.prove_unused().is_ok());
}

#[test]
fn nobody_waits_for_a_part_that_never_comes() {
    let made = make();
    let files = unproved(made.path(), &digest(made.path()));
    let weights = files.open("unet/model.safetensors").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| weights.hash(1000, &[7; 1000]));
        weights.abandon();
        assert!(waits.join().unwrap().is_err());
    });
}

#[test]
fn loading_stops_when_the_checkpoint_is_not_wanted_any_more() {
    let made = make();
    let watch: Watch = Box::new(|done, _| done < 1000);
    let files = Files::unproved(made.path().to_str().unwrap(), &digest(made.path()), watch).unwrap();
    let weights = files.open("unet/model.safetensors").unwrap();
    weights.hash(0, &[7; 900]).unwrap();
    assert!(weights.hash(900, &[7; 100]).is_err());
    assert_eq!(files.prove_unused(), Err(Stopped::Cancelled));
}

#[test]
fn what_no_digest_covers_is_not_there() {
    let made = make();
    fs::write(made.path().join(".hidden.json"), "{}").unwrap();
    let files = unproved(made.path(), &digest(made.path()));
    assert_eq!(files.read(".hidden.json").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(files.names("unet").collect::<Vec<_>>(), ["model.safetensors"]);
    assert!(files.contains("model_index.json") && !files.contains("unet"));
}
