//! A pod that is told to stop finishes what it has, says so at once, and takes nothing new.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use easel_api::engine::ModelState;
use easel_api::identity::Identity;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, MODEL, PATIENCE, World, checkpoint, desired, eventually, is_ready, plain, prepare};

#[tokio::test]
async fn a_draining_pod_finishes_and_refuses() {
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let (gateway, operator) = (world.gateway.clone(), world.operator.clone());
    let drawing = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.generate(json!({"steps": 150})).await }
    });
    operator.report_until(|report| report.running == 1).await;
    let probes = world.pod.addresses().probes;
    let mut reports = operator.reports().await;
    let stopped = tokio::spawn(world.pod.drain());
    eventually("readyz says no", async || plain(probes, "/readyz").await.0 == StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(plain(probes, "/readyz").await.1, "draining\n");
    let refused = gateway.generate(json!({})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "draining"));
    let mut draining = false;
    while let Some(report) = reports.next().await {
        draining |= report.draining && report.running == 1;
    }
    assert!(draining, "the report says it while the last picture is drawn, and then its stream ends");
    assert_eq!(drawing.await.unwrap().status, StatusCode::OK);
    assert!(stopped.await.unwrap(), "nothing was cut off");
}

#[tokio::test]
async fn the_drain_time_is_a_bound() {
    let world = World::ready(&["--fake-step-ms=640", "--drain-seconds=0"]).await;
    let gateway = world.gateway.clone();
    tokio::spawn(async move { gateway.generate(json!({"steps": 1000})).await });
    world.operator.report_until(|report| report.running == 1).await;
    assert!(!world.pod.drain().await);
}

/// The binary itself, killed when the test ends.
pub(crate) struct Binary {
    process: Child,
    /// Where its metrics are.
    pub(crate) metrics: SocketAddr,
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Binary {
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> (Self, SocketAddr) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_easel-inference"));
        command.args(["--pipeline=fake", "--fake-step-ms=640", "--drain-seconds=20"]).args(flags);
        command.args(["--listen=127.0.0.1:0", "--probes-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]);
        command.arg(format!("--tls-dir={}", folder.display()));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let address = |port: &str| line[port].as_str().unwrap().parse::<SocketAddr>().unwrap();
            (line["message"] == "listening").then(|| (address("engine"), address("metrics")))
        });
        std::thread::spawn(move || lines.count()); // a full pipe would stop the pod
        let (engine, metrics) = listening.unwrap();
        (Self { process: child, metrics }, engine)
    }

    pub(crate) fn terminate(&self) {
        assert!(Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status().unwrap().success());
    }

    /// As with `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Until it has ended by itself.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        tokio::task::spawn_blocking(move || self.process.wait().unwrap()).await.unwrap().code()
    }
}

#[tokio::test]
async fn sigterm_ends_the_process_with_zero_after_the_last_answer() {
    let (authority, folder) = prepare();
    let (mut binary, address) = Binary::start(folder.path(), &[]);
    let client = |identity: Identity| -> Client { authority.client(&authority, Some(&identity.uri()), address) };
    let (gateway, operator) = (client(Identity::Gateway), client(Identity::Operator));
    operator.hold(1, vec![desired(MODEL, checkpoint(&folder.path().join("model"), "a"))]).await;
    operator.report_until(|report| is_ready(report, MODEL)).await;
    let drawing = tokio::spawn(async move { gateway.generate(json!({"steps": 100})).await });
    operator.report_until(|report| report.running == 1).await;
    binary.terminate();
    assert_eq!(drawing.await.unwrap().status, StatusCode::OK);
    let status = tokio::task::spawn_blocking(move || binary.process.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn sigterm_does_not_wait_for_a_checkpoint_that_loads() {
    let (authority, folder) = prepare();
    let (mut binary, address) = Binary::start(folder.path(), &["--fake-load-ms=600000"]);
    let operator = authority.client(&authority, Some(&Identity::Operator.uri()), address);
    operator.hold(1, vec![desired(MODEL, checkpoint(&folder.path().join("model"), "a"))]).await;
    // It hashes what it loads, and has begun to.
    let loads = |state: &ModelState| matches!(state, ModelState::Verifying { done_bytes: 1.., .. });
    operator.report_until(|report| loads(&report.models[0].state)).await;
    binary.terminate();
    let ended = tokio::task::spawn_blocking(move || binary.process.wait().unwrap());
    assert_eq!(tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().code(), Some(0));
}

#[test]
fn a_binary_without_libtorch_says_so() {
    if cfg!(feature = "torch") {
        return;
    }
    let (_authority, folder) = prepare();
    let mut command = Command::new(env!("CARGO_BIN_EXE_easel-inference"));
    let output =
        command.arg("--pipeline=torch").arg(format!("--tls-dir={}", folder.path().display())).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--features torch"));
}
