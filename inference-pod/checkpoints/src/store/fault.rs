//! What can go wrong at a store, reduced to what somebody can do about it.
//! Knows the libraries' errors; keeps credentials and signed URLs out of texts.

use easel_api::engine::RefusalReason;
use oci_client::errors::{OciDistributionError, OciErrorCode};

use crate::refusal::Refusal;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NotFound,
    Unauthorized,
    /// No answer, or one that broke off.
    Broken(String),
    /// Answered that it can't answer now.
    Busy(String),
    /// Has fewer bytes than it named.
    Short,
    /// The object is not the one that was listed.
    Changed,
    /// Bytes that are not those of the digest; names the file.
    Mismatch(String),
    /// Speaks another protocol than we do, or names something that we don't take.
    Unsupported(String),
}

impl Fault {
    /// Whether asking again at once may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Busy(_) | Self::Short => true,
            Self::NotFound | Self::Unauthorized | Self::Changed | Self::Mismatch(_) | Self::Unsupported(_) => false,
        }
    }

    /// In words, of the checkpoint at `source`.
    pub(crate) fn refusal(&self, source: &str, digest: &str) -> Refusal {
        let (reason, message) = match self {
            Self::NotFound => (
                RefusalReason::NotFound,
                format!("'{source}' has nothing with the digest {digest}; check the name and that it was pushed"),
            ),
            Self::Unauthorized => (
                RefusalReason::Unauthorized,
                format!(
                    "'{source}' asks for a credential or does not accept this one; renew the Secret that \
                     spec.checkpoint.secretRef names, and check that it may read"
                ),
            ),
            Self::Broken(why) => (
                RefusalReason::Unreachable,
                format!(
                    "'{source}' does not answer or broke off ({why}); check the address, the network and the store"
                ),
            ),
            Self::Busy(why) => (
                RefusalReason::Unreachable,
                format!("'{source}' answers that it can't serve now ({why}); check the store"),
            ),
            Self::Short => (
                RefusalReason::Truncated,
                format!("'{source}' gives fewer bytes than it promises; the upload is torn: push the checkpoint again"),
            ),
            Self::Changed => (
                RefusalReason::DigestMismatch,
                format!("'{source}' changed while it was fetched; write each checkpoint under a prefix of its own"),
            ),
            Self::Mismatch(what) => (
                RefusalReason::DigestMismatch,
                format!("{what} of '{source}' does not have the bytes that {digest} names; push the checkpoint again"),
            ),
            Self::Unsupported(why) => (RefusalReason::Unsupported, format!("'{source}': {why}")),
        };
        Refusal::new(reason, message)
    }

    pub(super) fn of_status(code: u16, text: &str) -> Self {
        match code {
            401 | 403 => Self::Unauthorized,
            404 => Self::NotFound,
            412 => Self::Changed,
            416 => Self::Short,
            408 | 425 | 429 | 500.. => Self::Busy(format!("status {code}")),
            _ => Self::Unsupported(format!("the store answers with status {code}: {}", scrub(text))),
        }
    }

    pub(super) fn of_oci(error: OciDistributionError) -> Self {
        match error {
            OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { url: _ } => {
                Self::Unauthorized
            }
            OciDistributionError::RegistryError { envelope, url: _ } => Self::of_codes(&envelope.errors),
            OciDistributionError::ServerError { code, url: _, message } => Self::of_status(code, &message),
            OciDistributionError::RequestError(error) => Self::of_request(error),
            OciDistributionError::ImageManifestNotFoundError(_) => Self::NotFound,
            OciDistributionError::DigestError(_) => Self::Mismatch("the manifest".into()),
            OciDistributionError::IoError(error) => Self::Broken(scrub(&chain(&error))),
            error => Self::Unsupported(format!("the registry's answer can't be read: {}", scrub(&chain(&error)))),
        }
    }

    fn of_codes(errors: &[oci_client::errors::OciError]) -> Self {
        let has = |codes: &[OciErrorCode]| errors.iter().any(|error| codes.contains(&error.code));
        if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
            return Self::Unauthorized;
        }
        if has(&[OciErrorCode::Toomanyrequests]) {
            return Self::Busy("too many requests".into());
        }
        let missing = [
            OciErrorCode::BlobUnknown,
            OciErrorCode::ManifestBlobUnknown,
            OciErrorCode::ManifestUnknown,
            OciErrorCode::NameInvalid,
            OciErrorCode::NameUnknown,
            OciErrorCode::NotFound,
        ];
        if has(&missing) {
            return Self::NotFound;
        }
        let codes: Vec<_> = errors.iter().map(|error| format!("{:?}", error.code)).collect();
        Self::Unsupported(format!("the registry answers {}", codes.join(", ")))
    }

    pub(super) fn of_request(error: reqwest::Error) -> Self {
        let error = error.without_url();
        match error.status() {
            Some(status) => Self::of_status(status.as_u16(), ""),
            None => Self::Broken(scrub(&chain(&error))),
        }
    }

    /// Of a body that came in part.
    pub(super) fn of_body(error: &dyn std::error::Error) -> Self {
        Self::Broken(scrub(&chain(error)))
    }

    pub(super) fn of_object_store(error: &object_store::Error) -> Self {
        use object_store::Error;
        match error {
            Error::NotFound { .. } => Self::NotFound,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Unauthorized,
            Error::Precondition { .. } | Error::NotModified { .. } => Self::Changed,
            Error::Generic { store: _, source } => Self::of_generic(&chain(source.as_ref())),
            error => Self::Unsupported(scrub(&chain(error))),
        }
    }

    /// The library tells statuses in text only.
    fn of_generic(text: &str) -> Self {
        let status =
            text.split("status code: ").nth(1).and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        match status {
            Some(code) => Self::of_status(code, ""),
            None => Self::Broken(scrub(text)),
        }
    }
}

/// Queries of URLs carry signatures and tokens, and names before an `@` are users.
fn scrub(text: &str) -> String {
    let clean = |word: &str| {
        let Some(scheme) = word.find("://") else { return word.to_owned() };
        let word = word.split('?').next().unwrap_or_default();
        match word.rfind('@') {
            Some(at) if at > scheme => format!("{}://{}", &word[..scheme], &word[at + 1..]),
            Some(_) | None => word.to_owned(),
        }
    };
    let text: Vec<_> = text.split_whitespace().map(clean).collect();
    text.join(" ").chars().take(MAX_TEXT).collect()
}

/// Of what a server said, in a message.
const MAX_TEXT: usize = 300;

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_can_be_done() {
        for (code, reason) in [
            (401, RefusalReason::Unauthorized),
            (403, RefusalReason::Unauthorized),
            (404, RefusalReason::NotFound),
            (412, RefusalReason::DigestMismatch),
            (416, RefusalReason::Truncated),
            (429, RefusalReason::Unreachable),
            (503, RefusalReason::Unreachable),
            (418, RefusalReason::Unsupported),
        ] {
            assert_eq!(Fault::of_status(code, "").refusal("oci://r/x", "sha256:0").reason, reason, "{code}");
        }
    }

    #[test]
    fn texts_lose_their_queries_and_users() {
        let text = "error for url (https://u:p@store.example/blob?X-Amz-Signature=abc) after GET http://a/b?token=c";
        let scrubbed = scrub(text);
        assert_eq!(scrubbed, "error for url (https://store.example/blob after GET http://a/b");
    }
}
