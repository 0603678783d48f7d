//! Which paths of a manifest may be written below a folder. Knows text; does not know the file system.

/// Why a path is not one of a file in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("is empty")]
    Empty,
    #[error("is absolute")]
    Absolute,
    #[error("has a part `.`, `..` or nothing between two slashes")]
    Climbs,
    #[error("has a backslash")]
    Backslash,
    #[error("has a control character")]
    Control,
    #[error("is longer than {MAX_PATH_BYTES} bytes, or has a name longer than {MAX_NAME_BYTES}")]
    TooLong,
}

/// Linux's `PATH_MAX` is 4096 and holds the folder as well.
const MAX_PATH_BYTES: usize = 1024;
/// Linux's `NAME_MAX`, less what a temporary name adds.
const MAX_NAME_BYTES: usize = 200;

pub(super) fn check(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if path.contains('\\') {
        return Err(PathError::Backslash);
    }
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if path.len() > MAX_PATH_BYTES || path.split('/').any(|part| part.len() > MAX_NAME_BYTES) {
        return Err(PathError::TooLong);
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PathError::Climbs);
    }
    Ok(())
}
