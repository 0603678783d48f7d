//! The OpenAI error envelope, and the one way that Easel's servers say no.
//! Knows status numbers and the envelope's words; knows no HTTP library, so that every server can use it.

use serde::{Deserialize, Serialize};

/// What an OpenAI SDK parses: `{"error": {...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub param: Option<String>,
    pub code: Option<String>,
}

/// A refusal or failure, before it is put into an HTTP response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: u16,
    pub kind: ErrorKind,
    pub message: String,
    pub param: Option<String>,
    pub code: Option<String>,
    /// Seconds after which trying again is worth while.
    pub retry_after: Option<u64>,
}

/// The values of `type` that OpenAI's SDKs tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidRequest,
    NotFound,
    RateLimit,
    Server,
    Overloaded,
}

impl ErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::NotFound => "invalid_request_error",
            Self::RateLimit => "rate_limit_error",
            Self::Server => "server_error",
            Self::Overloaded => "overloaded_error",
        }
    }
}

impl ApiError {
    fn new(status: u16, kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: Some(code.to_owned()), retry_after: None }
    }

    /// 400: the request breaks a rule; `param` names the field.
    pub fn invalid(param: &str, code: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(400, ErrorKind::InvalidRequest, code, message) }
    }

    /// 400: the body is not what the endpoint reads at all.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, ErrorKind::InvalidRequest, "invalid_body", message)
    }

    /// 404 for a model that nobody serves here.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("the model '{model}' does not exist; GET /v1/models lists those that do");
        Self { param: Some("model".into()), ..Self::new(404, ErrorKind::NotFound, "model_not_found", message) }
    }

    /// 404 for a path.
    pub fn unknown_path(method: &str, path: &str) -> Self {
        Self::new(404, ErrorKind::NotFound, "unknown_url", format!("unknown request URL: {method} {path}"))
    }

    /// 405: the path exists, the method does not.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{method} is not allowed on {path}");
        Self::new(405, ErrorKind::InvalidRequest, "method_not_allowed", message)
    }

    /// 413: more bytes than the endpoint reads.
    pub fn too_large(limit_bytes: u64) -> Self {
        let message = format!("the request body is larger than {limit_bytes} bytes");
        Self::new(413, ErrorKind::InvalidRequest, "body_too_large", message)
    }

    /// 415: not JSON.
    pub fn unsupported_media_type(found: &str) -> Self {
        let message = format!("content-type '{found}' is not supported; send application/json");
        Self::new(415, ErrorKind::InvalidRequest, "unsupported_media_type", message)
    }

    /// 429: the queue's bound is reached.
    pub fn queue_full(message: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(429, ErrorKind::RateLimit, "queue_full", message) }
    }

    /// 403: a caller that has proved who it is, but not one that may do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, ErrorKind::InvalidRequest, "forbidden", message)
    }

    /// 409: an older generation than the one in force.
    pub fn stale(message: impl Into<String>) -> Self {
        Self::new(409, ErrorKind::InvalidRequest, "stale_generation", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, ErrorKind::Server, "internal_error", message)
    }

    /// 502: every pod that was tried failed.
    pub fn upstream(message: impl Into<String>) -> Self {
        Self::new(502, ErrorKind::Server, "upstream_failed", message)
    }

    /// 503: nobody can take it now, but soon.
    pub fn unavailable(code: &str, message: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(503, ErrorKind::Overloaded, code, message) }
    }

    /// 504: not finished before its deadline.
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(504, ErrorKind::Server, "deadline_exceeded", message)
    }

    pub fn envelope(&self) -> ErrorEnvelope {
        let Self { status: _, kind, message, param, code, retry_after: _ } = self.clone();
        ErrorEnvelope { error: ErrorBody { message, kind: kind.as_str().to_owned(), param, code } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_exactly_the_four_fields_that_sdks_read() {
        let value = serde_json::to_value(ApiError::invalid("n", "invalid_value", "n is 0").envelope()).unwrap();
        let expected = serde_json::json!({"error":
            {"message": "n is 0", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}});
        assert_eq!(value, expected);
    }
}
