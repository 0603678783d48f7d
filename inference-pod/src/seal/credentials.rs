//! A manifest by the `c2pa` crate: created by a trained model, signed with the pod's certificate.
//! Speaks to nobody: no time stamps, no revocation lists, no remote manifests.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use c2pa::{Builder, BuilderIntent, Context, DigitalSourceType, SigningAlg, create_signer};
use easel_api::images::OutputFormat;
use serde_json::json;

use super::{Seal, SealError};

pub(super) struct Credentials {
    certificate: Vec<u8>,
    key: Vec<u8>,
    context: Arc<Context>,
}

/// The key must not be read by who reads logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Signs once, so that a certificate that no reader would accept is found at the start and not at the first picture.
    pub(super) fn read(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("failed to read {}", path.display()));
        let (certificate, key) = (read(certificate)?, read(key)?);
        // What was signed is read again and checked, certificate and all; whether its authority is trusted is the reader's
        // affair.
        let settings = json!({"verify": {
            "verify_after_sign": true, "verify_trust": false, "ocsp_fetch": false, "remote_manifest_fetch": false,
        }});
        let context = Context::new().with_settings(settings).context("failed to set C2PA up")?.into_shared();
        let credentials = Self { certificate, key, context };
        credentials.sign(&smallest_png()?, "image/png").context(
            "the certificate of --c2pa-certificate can't sign: it must be P-256, signed by an authority, and be for \
             digitalSignature and emailProtection or documentSigning; --c2pa-key must be its key",
        )?;
        Ok(credentials)
    }

    fn sign(&self, file: &[u8], media_type: &str) -> c2pa::Result<Vec<u8>> {
        let signer = create_signer::from_keys(&self.certificate, &self.key, SigningAlg::Es256, None)?;
        let generator = json!([{"name": "Easel", "version": env!("CARGO_PKG_VERSION")}]);
        let mut builder = Builder::from_shared_context(&self.context)
            .with_definition(json!({"claim_generator_info": generator, "format": media_type}).to_string())?;
        builder.set_intent(BuilderIntent::Create(DigitalSourceType::TrainedAlgorithmicMedia));
        let mut sealed = Cursor::new(Vec::with_capacity(file.len() + (32 << 10)));
        builder.sign(signer.as_ref(), media_type, &mut Cursor::new(file), &mut sealed)?;
        Ok(sealed.into_inner())
    }
}

impl Seal for Credentials {
    fn seal(&self, file: Vec<u8>, format: OutputFormat) -> Result<Vec<u8>, SealError> {
        let media_type = match format {
            OutputFormat::Png => "image/png",
            OutputFormat::Jpeg => "image/jpeg",
            OutputFormat::Webp => "image/webp",
        };
        self.sign(&file, media_type).map_err(|error| SealError(error.into()))
    }
}

fn smallest_png() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 1, 1).write_header()?;
    writer.write_image_data(&[0])?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use c2pa::Reader;
    use c2pa::validation_results::ValidationState;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };
    use tempfile::TempDir;

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params
    }

    /// A key, and a certificate for `purpose` by an authority.
    fn written(purpose: ExtendedKeyUsagePurpose) -> TempDir {
        let (folder, mut authority, mut leaf) = (TempDir::new().unwrap(), params("authority"), params("studio"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        leaf.use_authority_key_identifier_extension = true;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.path().join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
        folder
    }

    fn opened(folder: &TempDir) -> anyhow::Result<Credentials> {
        Credentials::read(&folder.path().join("tls.crt"), &folder.path().join("tls.key"))
    }

    fn read(file: &[u8], media_type: &str) -> Reader {
        let settings = json!({"verify": {"verify_trust": false}});
        let context = Context::new().with_settings(settings).unwrap();
        Reader::from_context(context).with_stream(media_type, Cursor::new(file)).unwrap()
    }

    fn picture(format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image::RgbImage::from_pixel(16, 16, image::Rgb([200, 0, 100])).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_format_says_that_a_trained_model_made_it_and_who_signed() {
        let credentials = opened(&written(ExtendedKeyUsagePurpose::EmailProtection)).unwrap();
        for (format, kind, media_type) in [
            (OutputFormat::Png, image::ImageFormat::Png, "image/png"),
            (OutputFormat::Jpeg, image::ImageFormat::Jpeg, "image/jpeg"),
            (OutputFormat::Webp, image::ImageFormat::WebP, "image/webp"),
        ] {
            let plain = picture(kind);
            let sealed = credentials.seal(plain.clone(), format).unwrap();
            let reader = read(&sealed, media_type);
            assert_eq!(reader.validation_state(), ValidationState::Valid, "{}", reader.json());
            let json = reader.json();
            assert!(
                json.contains("digitalsourcetype/trainedAlgorithmicMedia") && json.contains("c2pa.created"),
                "{json}"
            );
            assert!(json.contains("\"issuer\": \"studio\"") && json.contains("Easel"), "{json}");
            let pixels = |file: &[u8]| image::load_from_memory(file).unwrap().into_rgb8();
            assert_eq!(pixels(&sealed), pixels(&plain));
        }
    }

    #[test]
    fn a_changed_picture_does_not_match_its_statement() {
        let credentials = opened(&written(ExtendedKeyUsagePurpose::EmailProtection)).unwrap();
        let mut sealed = credentials.seal(picture(image::ImageFormat::Jpeg), OutputFormat::Jpeg).unwrap();
        let last = sealed.len() - 3; // within the pixels, before the marker of the end
        sealed[last] ^= 1;
        assert_eq!(read(&sealed, "image/jpeg").validation_state(), ValidationState::Invalid);
    }

    #[test]
    fn a_certificate_for_servers_is_refused_at_the_start() {
        let error = opened(&written(ExtendedKeyUsagePurpose::ServerAuth)).unwrap_err();
        assert!(error.to_string().contains("emailProtection"), "{error:#}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_at_the_start() {
        let (one, other) =
            (written(ExtendedKeyUsagePurpose::EmailProtection), written(ExtendedKeyUsagePurpose::EmailProtection));
        let error = Credentials::read(&one.path().join("tls.crt"), &other.path().join("tls.key")).unwrap_err();
        assert!(error.to_string().contains("its key"), "{error:#}");
    }
}
