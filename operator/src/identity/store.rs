//! An API server with Secrets and Deployments, in memory: it remembers every version, and fails when it is told to.
//! Compiled for tests only.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is lost.
    Lost,
    /// It is done, and the answer is lost.
    Unanswered,
}

#[derive(Clone)]
pub(super) struct Store(Arc<Mutex<Inner>>);

struct Inner {
    now: Instant,
    secrets: BTreeMap<String, Value>,
    deployments: Vec<Value>,
    history: Vec<(Instant, String, Secret)>,
    writes: usize,
    fault: Option<(usize, Fault)>,
    /// Key of a Secret that refuses writes.
    immutable: Option<String>,
}

impl Store {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now,
            secrets: BTreeMap::new(),
            deployments: Vec::new(),
            history: Vec::new(),
            writes: 0,
            fault: None,
            immutable: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn client(&self) -> Client {
        let store = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let store = store.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
                let (status, answer) = store.inner().answer(&parts.method, parts.uri.path(), &body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        Client::new(service, "easel-system")
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.inner().now = now;
    }

    pub(super) fn add_deployment(&self, namespace: &str, name: &str) {
        let labels = json!({"easel.dev/workload": name, "app.kubernetes.io/managed-by": "easel"});
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        let spec = json!({"selector": {}, "template": {}});
        self.inner().deployments.push(json!({"metadata": metadata, "spec": spec}));
    }

    pub(super) fn annotate(&self, key: &str, name: &str, value: &str) {
        self.inner().secrets.get_mut(key).unwrap()["metadata"]["annotations"][name] = json!(value);
    }

    pub(super) fn fail(&self, write: usize, fault: Fault) {
        self.inner().fault = Some((write, fault));
    }

    pub(super) fn freeze(&self, key: &str) {
        self.inner().immutable = Some(key.to_owned());
    }

    pub(super) fn writes(&self) -> usize {
        self.inner().writes
    }

    /// `namespace/name`.
    pub(super) fn secret(&self, key: &str) -> Secret {
        serde_json::from_value(self.inner().secrets[key].clone()).unwrap()
    }

    /// Every version of every Secret, and when it was written.
    pub(super) fn history(&self) -> Vec<(Instant, String, Secret)> {
        self.inner().history.clone()
    }
}

impl Inner {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["apis", "apps", "v1", "deployments"] => {
                let list = json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": self.deployments});
                (StatusCode::OK, list)
            }
            ["api", "v1", "namespaces", namespace, "secrets"] => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                self.write(method, &format!("{namespace}/{name}"), body)
            }
            ["api", "v1", "namespaces", namespace, "secrets", name] => {
                let key = format!("{namespace}/{name}");
                if method != Method::GET {
                    return self.write(method, &key, body);
                }
                let found = self.secrets.get(&key).cloned();
                found.map_or_else(|| status(StatusCode::NOT_FOUND, "NotFound"), |found| (StatusCode::OK, found))
            }
            _ => panic!("{method} {path}"),
        }
    }

    fn write(&mut self, method: &Method, key: &str, body: &Value) -> (StatusCode, Value) {
        self.writes += 1;
        let fault = self.fault.filter(|(write, _)| *write == self.writes).map(|(_, fault)| fault);
        if fault == Some(Fault::Lost) {
            return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        if self.immutable.as_deref() == Some(key) {
            return status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        let held = self.secrets.get(key);
        if method == Method::POST && held.is_some() {
            return status(StatusCode::CONFLICT, "AlreadyExists");
        }
        let wanted = &body["metadata"]["resourceVersion"];
        if !wanted.is_null() && held.is_none_or(|held| held["metadata"]["resourceVersion"] != *wanted) {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        let mut made = body.clone();
        made["metadata"]["resourceVersion"] = json!(self.writes.to_string());
        // What others have written stays; of our own, what is no longer said is gone.
        if let Some(note) = held.and_then(|held| held["metadata"]["annotations"].get("easel.dev/rotate")) {
            made["metadata"]["annotations"]["easel.dev/rotate"] = note.clone();
        }
        self.history.push((self.now, key.to_owned(), serde_json::from_value(made.clone()).unwrap()));
        self.secrets.insert(key.to_owned(), made.clone());
        if fault == Some(Fault::Unanswered) {
            return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        (StatusCode::OK, made)
    }
}

fn status(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason,
        "message": reason, "code": code.as_u16()});
    (code, body)
}
