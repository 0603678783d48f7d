//! The program as people run it: what stands on stdout, what on stderr, and the exit code.

#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const DIGEST: &str = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";

fn easel(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-easel"));
    // Nobody's own credentials.
    command.args(arguments).current_dir(folder).env("DOCKER_CONFIG", folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder with keys and a checkpoint.
fn bench() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("model/unet")).unwrap();
    fs::write(folder.path().join("model/model_index.json"), r#"{"_class_name":"X","unet":["diffusers","Y"]}"#).unwrap();
    fs::write(folder.path().join("model/unet/a.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    for name in ["easel", "other"] {
        stdout(&easel(folder.path(), &["generate-key-pair", "--name", name]));
    }
    folder
}

#[test]
fn a_new_private_key_is_readable_by_its_owner_only_and_never_overwritten() {
    let bench = bench();
    let key = bench.path().join("easel.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&key).unwrap();
    for remove in ["none", "easel.pub"] {
        let _ = fs::remove_file(bench.path().join(remove));
        let again = easel(bench.path(), &["generate-key-pair"]);
        assert_eq!(again.status.code(), Some(1));
        assert!(stderr(&again).contains("not overwritten"), "{}", stderr(&again));
        assert_eq!(fs::read(&key).unwrap(), before);
    }
}

#[test]
fn a_signed_folder_is_trusted_until_a_byte_changes() {
    let bench = bench();
    let run = |arguments: &[&str]| easel(bench.path(), arguments);
    let signature = stdout(&run(&["sign", "model", "--key", "easel.key"]));
    let verify = |key: &str| run(&["verify", "model", "--key", key, "--signature", &signature]);
    let digest = stdout(&run(&["digest", "model"]));
    assert_eq!(stdout(&verify("easel.pub")), format!("{digest} is signed with a trusted key"));
    assert_eq!(verify("other.pub").status.code(), Some(3));
    assert_eq!(run(&["verify", "model", "--key", "easel.pub"]).status.code(), Some(3), "unsigned");
    assert_eq!(verify("easel.key").status.code(), Some(1), "a private key is no verdict");

    fs::write(bench.path().join("model/README.md"), "changed").unwrap();
    let changed = verify("easel.pub");
    assert_eq!(changed.status.code(), Some(3));
    assert!(stderr(&changed).contains("was not made with one of the trusted keys"), "{}", stderr(&changed));
}

#[test]
fn json_says_the_same_as_text() {
    let bench = bench();
    let text = stdout(&easel(bench.path(), &["digest", "model"]));
    let json = stdout(&easel(bench.path(), &["digest", "model", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["digest"], text);
}

#[test]
fn what_cannot_be_pushed_is_refused_before_the_registry_is_asked() {
    let bench = bench();
    fs::write(bench.path().join("model/unet/a.bin"), "x").unwrap();
    // Nothing listens there; the pickle is what is said.
    let refused = easel(bench.path(), &["push", "model", "oci://127.0.0.1:1/x", "--plain-http"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("convert it to safetensors"), "{}", stderr(&refused));
    fs::remove_file(bench.path().join("model/unet/a.bin")).unwrap();
    let refused = easel(bench.path(), &["push", "model", "oci://127.0.0.1:1/x", "--plain-http"]);
    assert!(stderr(&refused).contains("failed to reach 127.0.0.1:1"), "{}", stderr(&refused));
    assert!(refused.stdout.is_empty(), "what reads stdout gets no reference to what is not there");
}

#[test]
fn wrong_flags_are_told_from_failures() {
    let bench = bench();
    let code = |arguments: &[&str]| easel(bench.path(), arguments).status.code();
    assert_eq!(code(&["push", "model", "registry.example/x"]), Some(2));
    assert_eq!(code(&["sign", "oci://registry.example/x:v1", "--key", "easel.key"]), Some(2), "a tag may move");
    assert_eq!(code(&["sign", "nowhere", "--key", "easel.key"]), Some(1));
    let artifact = format!("oci://127.0.0.1:1/x@{DIGEST}");
    assert_eq!(code(&["verify", &artifact, "--key", "easel.pub", "--plain-http"]), Some(1), "away is no verdict");
}

const SCENARIO: &str = "
pools: [{name: a, replicas: 4, usd_per_hour: 2}]
arrivals: {process: poisson, rho: 0.6}
requests: 400
";

#[test]
fn a_simulation_prints_one_object_with_every_figure_and_the_same_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.yaml"), SCENARIO).unwrap();
    let run = |seed: &str| {
        let flags =
            ["simulate", "--generate", "1000", "--scenario", "s.yaml", "--policy", "easel", "--seed", seed, "--json"];
        stdout(&easel(folder.path(), &flags))
    };
    let object: serde_json::Value = serde_json::from_str(&run("1")).unwrap();
    for key in [
        "policy",
        "seed",
        "requests",
        "slo_attainment",
        "goodput_rps",
        "p50_s",
        "p95_s",
        "p99_s",
        "switches",
        "switch_share",
        "gpu_busy_share",
        "gpu_hours",
        "cost_usd",
        "usd_per_image_in_slo",
        "rejected",
        "lost",
    ] {
        assert!(!object[key].is_null(), "{key} is missing");
    }
    assert_eq!((object["requests"].as_u64(), object["lost"].as_u64()), (Some(400), Some(0)));
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn a_simulation_that_can_not_be_done_says_which_file_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.yaml"), SCENARIO).unwrap();
    fs::write(folder.path().join("bad.yaml"), "pools: [{name: a, replicas: 1, sped: 2}]").unwrap();
    let refused = |flags: &[&str]| {
        let output = easel(folder.path(), &[&["simulate"], flags].concat());
        assert_ne!(output.status.code(), Some(0));
        stderr(&output)
    };
    assert!(refused(&["--generate", "9", "--scenario", "bad.yaml"]).contains("the scenario 'bad.yaml'"));
    assert!(refused(&["--trace", "none.csv", "--scenario", "s.yaml"]).contains("the trace 'none.csv'"));
    assert!(
        refused(&["--generate", "9", "--scenario", "s.yaml", "--policy", "best"]).contains("there is no policy 'best'")
    );
    assert!(refused(&["--generate", "9", "--scenario", "s.yaml", "--seeds", "5..1"]).contains("the first must not"));
    assert!(refused(&["--scenario", "s.yaml"]).contains("--trace"));
}
