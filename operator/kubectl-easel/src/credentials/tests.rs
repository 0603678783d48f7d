use super::*;

fn config(text: &str) -> Config {
    serde_json::from_str(text).unwrap()
}

fn basic(username: &str, password: &str) -> RegistryAuth {
    RegistryAuth::Basic(username.into(), password.into())
}

#[test]
fn what_docker_login_wrote_is_found_under_every_name_that_docker_uses() {
    // ann:secret:with:colons
    let text = r#"{"auths": {
        "registry.example:5000": {"auth": "YW5uOnNlY3JldDp3aXRoOmNvbG9ucw=="},
        "https://old.example/v1/": {"username": "bob", "password": "p"},
        "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
        "token.example": {"registrytoken": "t"},
        "empty.example": {}
    }}"#;
    for (registry, expected) in [
        ("registry.example:5000", basic("ann", "secret:with:colons")),
        ("registry.example", RegistryAuth::Anonymous),
        ("old.example", basic("bob", "p")),
        ("docker.io", basic("hub", "pw")),
        ("token.example", RegistryAuth::Bearer("t".into())),
        ("empty.example", RegistryAuth::Anonymous),
        ("other.example", RegistryAuth::Anonymous),
    ] {
        assert!(config(text).answer(registry, |_, _| Ok(None)).unwrap() == expected, "{registry}");
    }
}

#[test]
fn the_registrys_own_helper_is_asked_before_the_one_for_all_and_the_file_is_last() {
    let text = r#"{"auths": {"a.example": {"auth": "ZmlsZTpw"}, "c.example": {"auth": "ZmlsZTpw"}},
        "credsStore": "all", "credHelpers": {"a.example": "own"}}"#;
    let ask = |helper: &str, registry: &str| {
        let answer = Answer { username: helper.to_owned(), secret: registry.to_owned() };
        Ok((registry != "c.example").then_some(answer))
    };
    for (registry, expected) in [
        ("a.example", basic("own", "a.example")),
        ("b.example", basic("all", "b.example")),
        ("c.example", basic("file", "p")),
    ] {
        assert!(config(text).answer(registry, ask).unwrap() == expected, "{registry}");
    }
}

#[test]
fn a_credential_that_cannot_be_used_is_refused_without_being_shown() {
    let text = r#"{"auths": {"a.example": {"auth": "ISEh"}, "b.example": {"identitytoken": "hunter2"}}}"#;
    for (registry, why) in [("a.example", "log in again"), ("b.example", "--password-stdin")] {
        let refused = config(text).answer(registry, |_, _| Ok(None)).unwrap_err().to_string();
        assert!(refused.contains(why) && !refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn a_helper_is_a_program_of_that_name_and_one_that_is_not_installed_has_nothing_to_say() {
    assert!(ask_helper("../../bin/sh", "r").err().unwrap().to_string().contains("not the name"));
    assert!(ask_helper("easel-test-absent", "r").unwrap().is_none());
}
