//! Binaries get no rpath from torch-sys; without one, tests and local runs would not find libtorch. And the shim is C++.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        #[cfg(feature = "torch")]
        shim(std::path::Path::new(&lib));
    }
}

/// By the headers of the libtorch that torch-sys found, and with its flags.
#[cfg(feature = "torch")]
fn shim(lib: &std::path::Path) {
    let include = lib.with_file_name("include");
    // For tests, which compile a stand-in by the same headers.
    println!("cargo:rustc-env=EASEL_LIBTORCH_INCLUDE={}", include.display());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-isystem")
        .flag(include)
        .warnings_into_errors(true)
        .file("shim/allocator.cpp")
        .compile("easel_shim");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=c10");
}
