//! PEM as keys come in it. Knows text and labels; does not know keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use x509_parser::error::PEMError;
use x509_parser::pem::Pem;

pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Vec<u8>,
}

/// Every block of a text, in order; what lies between them is ignored.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = Result<Block, String>> {
    // Indented keys come out of YAML.
    let text: String = text.lines().flat_map(|line| [line.trim(), "\n"]).collect();
    let mut rest = std::io::Cursor::new(text);
    std::iter::from_fn(move || match Pem::read(&mut rest) {
        Ok((Pem { label, contents }, _)) => Some(Ok(Block { label, der: contents })),
        Err(PEMError::MissingHeader) => None,
        Err(error) => Some(Err(error.to_string())),
    })
}

pub(super) fn write(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
