use serde_json::{Value, json};

use super::*;
use crate::stores::{Contents, SecretKey};
use crate::testing::{DIGEST, model, observed, resolved, with};

fn tagged(checkpoint: &Value) -> ImageModel {
    let mut fields = json!({"uri": "oci://r.example/m:v1", "resolveTag": true});
    fields.as_object_mut().unwrap().extend(checkpoint.as_object().unwrap().clone());
    with(model("art", "m"), json!({"checkpoint": fields}))
}

fn asked(model: &ImageModel, secrets: &Secrets) -> Vec<Question> {
    questions(&observed(&[], std::slice::from_ref(model), &[]), secrets).into_values().collect()
}

fn secrets(contents: Contents) -> Secrets {
    let key = SecretKey { namespace: "art".into(), name: "s".into() };
    Secrets { complete: true, read: [(key, contents)].into() }
}

#[test]
fn a_registry_is_asked_once_and_a_tag_that_moves_later_changes_nothing() {
    let none = Secrets::default();
    let new = tagged(&json!({}));
    assert_eq!(asked(&new, &none).len(), 1);
    assert_eq!(asked(&resolved(new.clone(), "oci://r.example/m:v1", DIGEST), &none), []);
    assert_eq!(asked(&resolved(new, "oci://r.example/m:v0", DIGEST), &none).len(), 1);
    assert_eq!(asked(&model("art", "m"), &none), []);
}

#[test]
fn a_registry_is_asked_with_the_models_own_login_and_not_before_it_is_there() {
    let named = tagged(&json!({"secretRef": {"name": "s"}}));
    let login = [("username".into(), b"me".to_vec()), ("password".into(), b"p".to_vec())].into();
    let question = asked(&named, &secrets(Contents::Found(login))).remove(0);
    assert!(matches!(question.access, Some(Access::Registry { username, .. }) if username == "me"));
    assert_eq!(asked(&named, &secrets(Contents::Absent)), []);
    assert_eq!(asked(&named, &Secrets::default()), []);
}

#[test]
fn a_failure_is_tried_again_with_growing_pauses_and_at_once_when_the_question_changes() {
    let (id, now) = (ModelId::new("art/m"), Instant::now());
    let question = |checkpoint| asked(&tagged(&checkpoint), &Secrets::default()).remove(0);
    let first: BTreeMap<_, _> = [(id.clone(), question(json!({})))].into();
    let mut attempts = BTreeMap::new();
    follow(&mut attempts, &first, now);
    assert_eq!(begin(&mut attempts, now).len(), 1);
    assert_eq!(begin(&mut attempts, now).len(), 0, "one is under way");
    let failure = TagFailure { reason: Reason::Unreachable, message: "m".into() };
    book(&mut attempts, &id, &first[&id], Err(failure.clone()), now);
    assert_eq!(attempts[&id].tag, Tag::Failed(failure));
    assert_eq!((begin(&mut attempts, now).len(), begin(&mut attempts, now + PAUSE_LEAST).len()), (0, 1));
    let other = [(id.clone(), question(json!({"uri": "oci://r.example/m:v2"})))].into();
    follow(&mut attempts, &other, now);
    assert_eq!(begin(&mut attempts, now).len(), 1);
    book(&mut attempts, &id, &first[&id], Ok(DIGEST.into()), now);
    assert_eq!(attempts[&id].tag, Tag::Resolving, "an answer to the former question is none to this one");
    book(&mut attempts, &id, &other[&id], Ok(DIGEST.into()), now);
    assert_eq!(attempts[&id].tag, Tag::Resolved { uri: "oci://r.example/m:v2".into(), digest: DIGEST.into() });
    assert_eq!(begin(&mut attempts, now + PAUSE_MOST).len(), 0, "what is resolved is not asked again");
}

#[test]
fn pauses_grow_to_a_bound() {
    assert_eq!((pause(1), pause(2), pause(60)), (PAUSE_LEAST, PAUSE_LEAST * 2, PAUSE_MOST));
}
