use std::fs;
use std::path::Path;
use std::sync::Mutex;

use axum::http::StatusCode;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use tempfile::TempDir;

use super::*;
use crate::artifact;
use crate::digest::Digest;

pub(crate) mod registry;

use registry::FakeRegistry;

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
const INDEX: &str = r#"{"_class_name":"StableDiffusionPipeline","_diffusers_version":"0.42.1",
    "scheduler":["diffusers","DDIMScheduler"],"unet":["diffusers","UNet2DConditionModel"],
    "safety_checker":[null,null],"requires_safety_checker":false}"#;

fn tensors(data: usize) -> Vec<u8> {
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{data}],"data_offsets":[0,{data}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..data).map(|i| (i % 251) as u8));
    bytes
}

/// As `save_pretrained()` writes it, in small; the weights need several pieces.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("model_index.json", INDEX.as_bytes());
    write("scheduler/scheduler_config.json", b"{}");
    write("unet/config.json", b"{}");
    write(WEIGHTS, &tensors(5_000_000));
    write("README.md", b"");
    folder
}

fn hashed(folder: &TempDir) -> Hashed {
    Folder::check(folder.path()).unwrap().hash(|_, _| true).unwrap().unwrap()
}

fn refused(spoil: impl FnOnce(&Path)) -> String {
    let folder = folder();
    spoil(folder.path());
    Folder::check(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_folder_that_a_pod_would_refuse_is_refused_before_a_byte_is_sent() {
    let write = |path: &'static str, bytes: &'static str| move |root: &Path| fs::write(root.join(path), bytes).unwrap();
    for (said, why) in [
        (refused(write("unet/model.bin", "x")), "convert it to safetensors"),
        (refused(write("unet/pipeline.py", "x")), "may be a program"),
        (refused(write(WEIGHTS, "PK\u{3}\u{4}aaaaaaaa")), "is not a whole safetensors file"),
        (refused(write("model_index.json", "{}")), "has no _class_name"),
        (refused(write("model_index.json", "[")), "can't be read"),
        (refused(|root| fs::remove_file(root.join("model_index.json")).unwrap()), "save_pretrained()"),
        (refused(|root| fs::remove_dir_all(root.join("scheduler")).unwrap()), "names the part 'scheduler'"),
        (refused(|root| fs::remove_file(root.join(WEIGHTS)).unwrap()), "safe_serialization=True"),
        (
            refused(|root| std::os::unix::fs::symlink("a", root.join("unet/b.json")).unwrap()),
            "copy the folder with cp -rL",
        ),
        (
            refused(|root| {
                fs::File::options().write(true).open(root.join(WEIGHTS)).unwrap().set_len(4_000_000).unwrap();
            }),
            "need 5000000 bytes",
        ),
    ] {
        assert!(said.contains(why), "{said:?} does not say {why:?}");
    }
    assert!(Folder::check(Path::new("/nowhere")).unwrap_err().to_string().contains("is not a folder"));
}

#[test]
fn an_adapter_is_pushed_without_an_index_and_only_as_a_whole_safetensors_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pytorch_lora_weights.safetensors");
    fs::write(&file, tensors(100)).unwrap();
    assert_eq!(hashed(&folder).files().len(), 1);
    fs::write(&file, &tensors(100)[..90]).unwrap();
    assert!(Folder::check(folder.path()).unwrap_err().to_string().contains("not a whole safetensors file"));
}

#[test]
fn a_folder_has_one_digest_wherever_it_lies_and_two_when_a_byte_differs() {
    let (here, there) = (folder(), folder());
    let digest = hashed(&here).digest();
    assert_eq!(hashed(&there).digest(), digest);
    fs::write(there.path().join("README.md"), "x").unwrap();
    assert_ne!(hashed(&there).digest(), digest);
    let listing = crate::digest::Listing::read(here.path()).unwrap().digest(|_, _| true).unwrap();
    assert_eq!(Some(hashed(&here).listing_digest()), listing);
}

/// One push, with what it reported.
struct Run {
    result: Result<Pushed, PushError>,
    events: Vec<Event>,
}

impl Run {
    fn sent(&self, wanted: &str) -> u64 {
        let bytes = |event: &Event| match event {
            Event::Sent { path, bytes } if path == wanted => *bytes,
            Event::Sent { .. } | Event::Present { .. } | Event::Again { .. } | Event::Done { .. } => 0,
        };
        self.events.iter().map(bytes).sum()
    }
}

async fn run(host: &str, tag: &str, auth: &RegistryAuth, folder: &Hashed) -> Run {
    let target = Reference::try_from(format!("{host}/models/emoji{tag}")).unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let progress: Progress = {
        let events = Arc::clone(&events);
        Arc::new(move |event| events.lock().unwrap().push(event))
    };
    let patience = Patience { attempts: 3, pause: Duration::ZERO };
    let client = client(true, None).unwrap();
    let result = push(&client, auth, &target, folder, patience, &progress).await;
    let events = events.lock().unwrap().clone();
    Run { result, events }
}

#[tokio::test]
async fn every_file_arrives_and_the_manifest_under_its_tag() {
    let (registry, host) = FakeRegistry::start().await;
    let folder = folder();
    let hashed = hashed(&folder);
    let run = run(&host, ":v1", &RegistryAuth::Anonymous, &hashed).await;
    let pushed = run.result.unwrap();
    let manifest = registry.manifest("v1").unwrap();
    assert_eq!(Digest::of(&manifest), pushed.digest);
    let files = artifact::files(&manifest).unwrap();
    assert_eq!(files, hashed.files());
    for artifact::File { path, digest, size } in files {
        assert_eq!(registry.blob(&digest).unwrap(), fs::read(folder.path().join(&path)).unwrap(), "{path}");
        assert_eq!(size, fs::metadata(folder.path().join(&path)).unwrap().len());
    }
    // Two files of two bytes, `{}`, are one blob.
    assert_eq!(pushed.sent_bytes + 2, hashed.files().iter().map(|file| file.size).sum::<u64>());
    assert_eq!(pushed.present_bytes, 0);
}

#[tokio::test]
async fn without_a_tag_the_artifact_is_found_by_its_digest() {
    let (registry, host) = FakeRegistry::start().await;
    let hashed = hashed(&folder());
    let target = Reference::with_digest(host, "models/emoji".into(), hashed.digest().to_string());
    let client = client(true, None).unwrap();
    let progress: Progress = Arc::new(|_| ());
    let pushed = push(&client, &RegistryAuth::Anonymous, &target, &hashed, Patience::default(), &progress).await;
    assert!(matches!(pushed, Err(PushError::Read { .. })), "the folder went with its last use: {pushed:?}");
    assert_eq!(registry.count("PUT"), 0);

    let folder = folder();
    let hashed = self::hashed(&folder);
    push(&client, &RegistryAuth::Anonymous, &target, &hashed, Patience::default(), &progress).await.unwrap();
    assert!(registry.manifest(&hashed.digest().to_string()).is_some());
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent_again() {
    let (registry, host) = FakeRegistry::start().await;
    let folder = folder();
    run(&host, ":v1", &RegistryAuth::Anonymous, &hashed(&folder)).await.result.unwrap();
    let puts = registry.count("PUT");
    fs::write(folder.path().join("README.md"), "new").unwrap();
    let again = run(&host, ":v2", &RegistryAuth::Anonymous, &hashed(&folder)).await;
    let pushed = again.result.unwrap();
    assert_eq!(pushed.sent_bytes, 3);
    assert!(pushed.present_bytes > 5_000_000);
    assert_eq!(registry.count("PUT") - puts, 3, "the file, the config and the manifest");
    let present = |event: &&Event| matches!(event, Event::Present { path, .. } if path == WEIGHTS);
    assert_eq!(again.events.iter().filter(present).count(), 1);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_sent_again_and_its_bytes_are_taken_back() {
    let (registry, host) = FakeRegistry::start().await;
    registry.break_off(2);
    let folder = folder();
    let run = run(&host, ":v1", &RegistryAuth::Anonymous, &hashed(&folder)).await;
    assert!(run.result.is_ok(), "{:?}", run.result);
    let again: Vec<_> = run.events.iter().filter(|event| matches!(event, Event::Again { .. })).collect();
    assert_eq!(again.len(), 2);
    let lost: u64 = again
        .iter()
        .map(|event| match event {
            Event::Again { path, bytes, .. } if path == WEIGHTS => *bytes,
            Event::Again { .. } | Event::Sent { .. } | Event::Present { .. } | Event::Done { .. } => 0,
        })
        .sum();
    assert_eq!(run.sent(WEIGHTS) - lost, tensors(5_000_000).len() as u64);
}

#[tokio::test]
async fn a_registry_that_keeps_failing_is_named_with_what_failed() {
    let (registry, host) = FakeRegistry::start().await;
    registry.refuse(StatusCode::INSUFFICIENT_STORAGE);
    let folder = folder();
    let error = run(&host, ":v1", &RegistryAuth::Anonymous, &hashed(&folder)).await.result.unwrap_err();
    let PushError::Refused { attempts, source, .. } = &error else { panic!("{error}") };
    assert_eq!(*attempts, 3);
    assert!(source.to_string().contains("no room"), "{source}");
    assert!(error.to_string().contains("what is there is not sent twice"), "{error}");
    assert!(registry.manifest("v1").is_none());
}

#[tokio::test]
async fn a_credential_is_shown_to_the_token_server_and_a_wrong_one_is_called_so() {
    let (registry, host) = FakeRegistry::start().await;
    let registry = registry.wants("ann:right");
    let folder = folder();
    let hashed = hashed(&folder);
    let with = |password: &str| RegistryAuth::Basic("ann".into(), password.into());
    for auth in [with("wrong-password"), RegistryAuth::Anonymous] {
        let error = run(&host, ":v1", &auth, &hashed).await.result.unwrap_err();
        assert!(matches!(error, PushError::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains("docker login"), "{error}");
        assert!(!format!("{error:?}").contains("wrong-password"));
    }
    assert_eq!(registry.count("PUT"), 0);
    run(&host, ":v1", &with("right"), &hashed).await.result.unwrap();
    assert!(registry.manifest("v1").is_some());
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_unreachable() {
    let folder = folder();
    let _ = FakeRegistry::start().await;
    let error = run("127.0.0.1:1", ":v1", &RegistryAuth::Anonymous, &hashed(&folder)).await.result.unwrap_err();
    assert!(matches!(error, PushError::Unreachable { .. }), "{error}");
}
