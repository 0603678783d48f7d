//! Which files a checkpoint may be made of: data in the diffusers layout, or one file of an adapter, and nothing that runs
//! when it is read.
//! Knows names only; whether the bytes are what the name says is for who reads them.

use std::collections::BTreeSet;

use easel_api::engine::RefusalReason;

use crate::refusal::Refusal;

/// Data that no reader runs. Files without an extension are text (LICENSE, NOTICE).
const DATA: [&str; 17] = [
    "",
    "csv",
    "gif",
    "jpeg",
    "jpg",
    "json",
    "jsonl",
    "license",
    "md",
    "model",
    "png",
    "safetensors",
    "txt",
    "webp",
    "yaml",
    "yml",
    "gitattributes",
];
/// Formats that are pickles or archives of pickles: reading one may run any program that is in it. Arrays of numpy and
/// HDF5 files may hold pickled objects.
const PICKLES: [&str; 14] =
    ["bin", "ckpt", "h5", "hdf5", "joblib", "keras", "mar", "npy", "npz", "pickle", "pkl", "pt", "pth", "pt2"];

/// Of every file's path, in any order. `source` says in messages where they are.
pub(crate) fn check<'a>(paths: impl Iterator<Item = &'a [u8]>, source: &str) -> Result<(), Refusal> {
    let paths: Vec<_> = paths.collect();
    for path in &paths {
        check_kind(path, source)?;
    }
    if paths.contains(&&b"model_index.json"[..]) || is_adapter(paths.iter().copied()) {
        return Ok(());
    }
    let message = format!(
        "'{source}' has no model_index.json, so it is not in the diffusers layout, and is no adapter, which is one \
         safetensors file; save it with save_pretrained() or save_lora_weights()"
    );
    Err(Refusal::new(RefusalReason::Unsupported, message))
}

/// One safetensors file, at the top, without a pipeline beside it.
pub(crate) fn is_adapter<'a>(paths: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut weights, mut index) = (Vec::new(), false);
    for path in paths {
        index |= path == b"model_index.json";
        weights.extend(Some(path).filter(|path| extension(path) == "safetensors"));
    }
    matches!(weights[..], [only] if !only.contains(&b'/')) && !index
}

fn check_kind(path: &[u8], source: &str) -> Result<(), Refusal> {
    let (extension, file) = (extension(path), String::from_utf8_lossy(path));
    let message = if DATA.contains(&extension.as_str()) {
        return Ok(());
    } else if PICKLES.contains(&extension.as_str()) {
        format!(
            "'{source}' holds '{file}', whose format may hold a pickle, and a pickle may run code when it is read; \
             convert it to safetensors and remove it"
        )
    } else {
        format!(
            "'{source}' holds '{file}', and .{extension} is not known to be data alone: it may be a program, or run \
             one when it is read; leave it out (a checkpoint is safetensors, JSON and text)"
        )
    };
    Err(Refusal::new(RefusalReason::UnsafeFormat, message))
}

/// Of paths that a store named: each must be a file below the folder, and no two the same.
pub(crate) fn check_paths(paths: &[&str], source: &str) -> Result<(), Refusal> {
    let refused = |path: &str, why: &str| {
        let message = format!("'{source}' names '{}', which {why}; push the folder again", path.escape_debug());
        Err(Refusal::new(RefusalReason::Unsupported, message))
    };
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        let parts = || path.split('/');
        if path.len() > MAX_PATH_BYTES || parts().count() > MAX_DEPTH || parts().any(|part| part.len() > MAX_NAME_BYTES)
        {
            return refused(path, "is too long or too deep");
        }
        if parts().any(|part| matches!(part, "" | "." | "..")) {
            return refused(path, "is not a path below the folder");
        }
        if path.chars().any(|char| char.is_control() || char == '\\') || path.starts_with('-') {
            return refused(path, "has a name that a listing can't hold");
        }
        if !seen.insert(path) {
            return refused(path, "is there twice");
        }
    }
    for path in paths {
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        if let Some(both) = folders.into_iter().find(|folder| seen.contains(folder)) {
            return refused(both, "is a file and a folder");
        }
    }
    Ok(())
}

/// Linux's `PATH_MAX` is 4096, and the cache's own folders come before.
const MAX_PATH_BYTES: usize = 1024;
/// Linux's `NAME_MAX`.
const MAX_NAME_BYTES: usize = 255;
const MAX_DEPTH: usize = 16;

/// In lower case.
pub(crate) fn extension(file: &[u8]) -> String {
    let name = file.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|byte| *byte == b'.').map_or(&[][..], |dot| &name[dot + 1..]);
    String::from_utf8_lossy(extension).to_ascii_lowercase()
}

/// Of the safetensors files: what loading will need at least.
pub(crate) fn weight_bytes<'a>(files: impl Iterator<Item = (&'a [u8], u64)>) -> u64 {
    files.filter(|(path, _)| extension(path) == "safetensors").map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(paths: &[&str]) -> Option<RefusalReason> {
        check(paths.iter().map(|path| path.as_bytes()), "x").err().map(|refusal| refusal.reason)
    }

    #[test]
    fn the_diffusers_layout_is_taken_with_its_texts_and_pictures() {
        let files = ["model_index.json", "unet/a.safetensors", "tokenizer/merges.txt", "LICENSE", "README.md", "a.PNG"];
        assert_eq!(reason(&files), None);
    }

    #[test]
    fn what_may_run_when_it_is_read_is_refused_wherever_it_lies() {
        let names = "a.bin a.ckpt unet/a.PT a.pth a.pkl a.pickle a.joblib unet/pipeline.py a.so a.sh a.npy a.h5 a.exe";
        for name in names.split(' ') {
            assert_eq!(reason(&["model_index.json", name]), Some(RefusalReason::UnsafeFormat), "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_file_and_says_what_to_do() {
        let paths = ["model_index.json", "unet/a.bin"].map(str::as_bytes);
        let message = check(paths.into_iter(), "oci://r/x").unwrap_err().message;
        assert!(message.contains("oci://r/x") && message.contains("unet/a.bin") && message.contains("convert"));
    }

    #[test]
    fn a_folder_without_an_index_is_unsupported() {
        assert_eq!(reason(&["unet/a.safetensors"]), Some(RefusalReason::Unsupported));
    }

    #[test]
    fn an_adapter_is_one_safetensors_file_with_texts_beside_it() {
        assert_eq!(reason(&["a.safetensors", "README.md", "pictures/a.png"]), None);
        for no_adapter in [&["a.safetensors", "b.safetensors"][..], &["a/b.safetensors"], &["README.md"]] {
            assert_eq!(reason(no_adapter), Some(RefusalReason::Unsupported), "{no_adapter:?}");
        }
        assert_eq!(reason(&["a.safetensors", "a.bin"]), Some(RefusalReason::UnsafeFormat));
        assert!(!is_adapter([&b"model_index.json"[..], b"a.safetensors"].into_iter()));
    }

    #[test]
    fn paths_stay_below_the_folder_and_are_distinct() {
        assert_eq!(check_paths(&["a", "b/a", "b/c/d.json"], "x"), Ok(()));
        for bad in ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a\\b", "a\nb", "-rf", "a/"] {
            assert!(check_paths(&["ok", bad], "x").is_err(), "{bad:?}");
        }
        assert!(check_paths(&["a", "a"], "x").is_err());
        assert!(check_paths(&["a/b", "a"], "x").is_err());
    }
}
