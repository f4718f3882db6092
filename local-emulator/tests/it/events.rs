//! Invokes each function on embedded state with the ready-made events in `functions/*/events`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::emulator::Place;

/// Every event and the status of its answer. The events are sent in the order of their names, on
/// empty state and with captchas off; event functions have no answer.
///
/// The tokens in the events are invalid, so operations for signed-in users are answered 401: the
/// event was read, its route was found, and its token was checked.
const ANSWERS: [(&str, Option<u16>); 19] = [
    ("admin-create-sale", Some(401)),
    ("admin-lift-ban", Some(401)),
    ("captcha-audio", Some(410)),
    ("captcha-draw", Some(201)),
    ("login-current-cookie", Some(401)),
    ("login-register", Some(201)),
    ("login-sign-in-base64", Some(201)),
    ("order-status-list", Some(401)),
    ("order-status-payment", Some(401)),
    ("order-worker-batch", None),
    ("order-worker-poison", None),
    ("sales-list", Some(200)),
    ("sales-one", Some(404)),
    ("seckill-order-cookie", Some(401)),
    ("seckill-ticket", Some(401)),
    ("sweeper-repeated", None),
    ("sweeper-tick", None),
    ("waiting-room-current", Some(401)),
    ("waiting-room-enter", Some(401)),
];

/// `functions/<function>/events/*.json` of every function, with the function's name. Panics when
/// one has none.
fn events() -> Vec<(String, PathBuf)> {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("functions");
    let mut found = Vec::new();
    for function in std::fs::read_dir(functions).unwrap() {
        let function = function.unwrap();
        let name = function.file_name().into_string().unwrap();
        let before = found.len();
        let folder = function.path().join("events");
        for event in std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            found.push((name.clone(), event.unwrap().path()));
        }
        assert!(found.len() > before, "{name} has no events");
    }
    assert!(found.len() >= 8, "{found:?}");
    found.sort();
    found
}

#[test]
fn ready_made_events_are_answered() {
    let place = Place::embedded();
    let mut tried = BTreeSet::new();
    for (function, file) in events() {
        let case = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            case.starts_with(&format!("{function}-")),
            "{case}: expected {function}-<case>.json"
        );
        let (_, expected) = ANSWERS
            .iter()
            .find(|(known, _)| *known == case)
            .unwrap_or_else(|| panic!("{case}: its answer is not listed"));
        let output = place.run(&["invoke", &function, "--event", file.to_str().unwrap()]);
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let status = answer["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
        assert_eq!(status, *expected, "{case}: {answer}");
        if let Some(status) = status {
            assert!(status < 500, "{case}: {answer}");
            let event: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            same_twice(&case, &event);
        }
        tried.insert(case);
    }
    let listed: BTreeSet<String> = ANSWERS.iter().map(|(case, _)| (*case).to_owned()).collect();
    assert_eq!(tried, listed, "an event that is listed has no file");
}

#[test]
fn a_cookie_from_api_gateway_signs_in() {
    let place = Place::embedded();
    let token = place.seed(1).remove(0);
    let (_, file) =
        events().into_iter().find(|(_, file)| file.ends_with("login-current-cookie.json")).unwrap();
    let event = std::fs::read_to_string(file).unwrap().replace("put.a.token.here", &token);
    let file = place.path().join("event.json");
    std::fs::write(&file, event).unwrap();
    let output = place.run(&["invoke", "login", "--event", file.to_str().unwrap()]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
}

/// Values that API Gateway repeats within an event agree, and the route has the form that the
/// template uses.
fn same_twice(case: &str, event: &Value) {
    let context = &event["requestContext"];
    assert_eq!(event["version"], "2.0", "{case}");
    assert_eq!(event["rawPath"], context["http"]["path"], "{case}");
    assert_eq!(event["routeKey"], context["routeKey"], "{case}");
    assert_eq!(event["headers"]["host"], context["domainName"], "{case}");
    let mut path = event["routeKey"].as_str().unwrap().strip_prefix("ANY ").unwrap().to_owned();
    for (name, value) in event["pathParameters"].as_object().into_iter().flatten() {
        path = path.replace(&format!("{{{name}}}"), value.as_str().unwrap());
    }
    assert_eq!(event["rawPath"], path, "{case}");
}
