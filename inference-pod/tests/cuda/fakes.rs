//! Builds the fakes as shared libraries and loads them.

use std::path::Path;
use std::process::Command;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda");

/// `source` is a file beside this one. Two handles of the library, one to be given away.
pub(crate) fn library(compiler: &str, source: &str, flags: &[&str]) -> (Library, Library) {
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("fake.so");
    let source = Path::new(FOLDER).join(source);
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]).args(flags).arg(&source).arg("-o").arg(&built);
    let output = command.output().unwrap_or_else(|error| panic!("failed to run {compiler}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (open(&built), open(&built))
}

#[allow(unsafe_code)]
fn open(path: &Path) -> Library {
    // SAFETY: it was just built of a source in this folder, whose constructors register a fake and do no more.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.unwrap()
}

/// A number of the fake's.
#[allow(unsafe_code)]
pub(crate) fn ask(fake: &Library, what: &str) -> usize {
    // SAFETY: what is asked takes nothing and returns a `size_t`.
    unsafe {
        let function: Symbol<unsafe extern "C" fn() -> usize> = fake.get(format!("fake_{what}").as_bytes()).unwrap();
        function()
    }
}

/// Changes the fake.
#[allow(unsafe_code)]
pub(crate) fn tell(fake: &Library, what: &str, number: usize) {
    // SAFETY: what is told takes a `size_t`, or nothing, and then C ignores it; it returns nothing.
    unsafe {
        let function: Symbol<unsafe extern "C" fn(usize)> = fake.get(format!("fake_{what}").as_bytes()).unwrap();
        function(number);
    }
}
