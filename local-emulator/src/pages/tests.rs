//! Tests of the pages through the router, as a browser gets them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use axum::{
    body::{Body, Bytes},
    http::{Request, header},
    response::Response,
};
use flate2::read::GzDecoder;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

/// Every page, with example values for parameters.
const ADDRESSES: [&str; 10] = [
    "/console",
    "/",
    "/sales/1",
    "/sign-in",
    "/register",
    "/forgot-password",
    "/orders",
    "/orders/1",
    "/problems",
    "/problems/sold-out",
];
/// The largest transfer size of one page with everything that it loads.
const WEIGHT_BYTES_MAX: usize = 150 * 1024;

async fn get(address: &str, headers: &[(header::HeaderName, &str)]) -> Response {
    let config = Config::load(None, Vec::new(), []).unwrap();
    let mut request = Request::get(address);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    router(&config).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// The bytes that are sent to a client that accepts gzip, and the uncompressed text.
async fn load(address: &str) -> (Bytes, String) {
    let response = get(address, &[(header::ACCEPT_ENCODING, "gzip, br")]).await;
    assert_eq!(response.status(), 200, "{address}");
    let packed = response.headers().contains_key(header::CONTENT_ENCODING);
    let sent = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    if packed {
        GzDecoder::new(sent.as_ref()).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(sent.to_vec()).unwrap();
    }
    (sent, text)
}

/// The values of an attribute.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    html.split(&format!(" {attribute}=\""))
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect()
}

#[tokio::test]
async fn no_page_weighs_too_much() {
    for page in ADDRESSES {
        let (sent, html) = load(page).await;
        let mut weight = sent.len();
        let mut loaded = BTreeSet::new();
        let mut waiting: Vec<String> = values(&html, "src")
            .into_iter()
            .chain(values(&html, "href"))
            .filter(|url| url.starts_with("/assets/"))
            .map(str::to_owned)
            .collect();
        while let Some(address) = waiting.pop() {
            if !loaded.insert(address.clone()) {
                continue;
            }
            let (sent, text) = load(&address).await;
            weight += sent.len();
            let folder = address.rsplit_once('/').unwrap().0;
            for part in text.split("from \"").skip(1).filter(|_| address.ends_with(".js")) {
                let import = part.split('"').next().unwrap();
                let address = layout::resolve(folder, import);
                assert!(
                    loaded.contains(&address) || waiting.contains(&address),
                    "{page} does not say beforehand that it loads {address}"
                );
            }
            if address.ends_with("/i18n.js") {
                // A browser loads one language: count the larger.
                let mut heaviest = 0;
                for language in ["en", "zh"] {
                    heaviest =
                        heaviest.max(load(&format!("{folder}/i18n/{language}.js")).await.0.len());
                }
                weight += heaviest;
            }
        }
        assert!(loaded.len() > 8, "{page}: {loaded:?}");
        assert!(weight < WEIGHT_BYTES_MAX, "{page}: {weight} bytes");
    }
}

#[tokio::test]
async fn pages_hold_to_their_policy() {
    for page in ADDRESSES {
        let response = get(page, &[]).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let (_, html) = load(page).await;
        assert!(
            !html.contains("<style") && !html.contains(" style=") && !html.contains(" on"),
            "{page}: inline style or script"
        );
        for script in html.split("<script").skip(1) {
            assert!(
                script.split('>').nth(1).unwrap().starts_with("</script"),
                "{page}: inline script"
            );
        }
        for address in values(&html, "src").into_iter().chain(values(&html, "href")) {
            let here =
                address.starts_with('/') && !address.starts_with("//") || address.starts_with('#');
            assert!(here, "{page}: {address} does not work behind a proxy, or is on another site");
        }
        assert!(!html.contains('{'), "{page}: a placeholder of the layout is not filled");
    }
}

#[tokio::test]
async fn a_captcha_provider_s_widget_is_allowed_only_where_it_is_used() {
    let policy = async |settings: &[(&str, &str)]| {
        let env =
            settings.iter().map(|(name, value)| (format!("FLASHSALE_{name}"), (*value).to_owned()));
        let config = Config::load(None, env, []).unwrap();
        let request = Request::get("/register").body(Body::empty()).unwrap();
        let response = router(&config).oneshot(request).await.unwrap();
        response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
    };
    let keys = [("CAPTCHAS__PROVIDER__SITE_KEY", "site"), ("CAPTCHAS__PROVIDER__SECRET", "secret")];
    let usual = policy(&keys).await;
    assert!(!usual.contains("frame-src") && !usual.contains("cloudflare"), "{usual}");
    let used = policy(&[&keys[..], &[("CAPTCHA", "provider")]].concat()).await;
    for directive in ["script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-src"] {
        let allowed = format!("{directive} https://challenges.cloudflare.com;");
        assert!(format!("{used};").contains(&allowed), "{directive}: {used}");
    }
    let own = [("CAPTCHA", "provider"), ("CAPTCHAS__PROVIDER__ORIGINS", "https://a.example")];
    let own = policy(&[&keys[..], &own].concat()).await;
    assert!(own.contains("frame-src https://a.example") && !own.contains("cloudflare"), "{own}");
    assert!(own.contains("default-src 'none'") && !own.contains("unsafe"), "{own}");
}

#[tokio::test]
async fn files_are_asked_for_again_with_their_tag() {
    let address = "/assets/common/base.css";
    let first = get(address, &[]).await;
    assert_eq!(first.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
    let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
    for (sent, status) in [
        (tag.clone(), 304),
        (format!("\"x\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("W/\"x\"".to_owned(), 200),
    ] {
        let again = get(address, &[(header::IF_NONE_MATCH, &sent)]).await;
        assert_eq!(again.status(), status, "{sent}");
        assert_eq!(again.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(again.headers()[header::VARY], "accept-encoding");
    }
    assert_eq!(
        get(&format!("/assets/{}/common/base.css", files::version()), &[]).await.status(),
        200
    );
    assert_eq!(get("/assets/v-of-yesterday/common/base.css", &[]).await.status(), 200);
    for missing in [
        "/assets/layout.html",
        "/assets/vendor/NOTICE.md",
        "/assets/common/..%2fbase.css",
        "/assets/../Cargo.toml",
        "/assets/nothing.js",
    ] {
        assert_eq!(get(missing, &[]).await.status(), 404, "{missing}");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pages")
}

/// Keys and texts of a catalogue. A text is on the line of its key or on the next one.
fn catalogue(language: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join(format!("common/i18n/{language}.js"))).unwrap();
    let flat = text.replace(":\n    \"", ": \"");
    let mut found = BTreeMap::new();
    for line in flat.lines().filter_map(|line| line.strip_prefix("  \"")) {
        let (key, rest) = line.split_once("\": \"").unwrap_or_else(|| panic!("{language}: {line}"));
        let text = rest.strip_suffix("\",").unwrap_or_else(|| panic!("{language}: {line}"));
        assert!(
            found.insert(key.to_owned(), text.to_owned()).is_none(),
            "{language}: {key} is there twice"
        );
    }
    found
}

/// The text of every module of the pages, except the catalogues and vendored modules.
fn modules() -> String {
    let mut all = String::new();
    let mut folders = vec![folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("i18n") && !path.ends_with("vendor") {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "js" || extension == "html")
            {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    all + include_str!("mod.rs")
}

#[test]
fn both_languages_say_the_same() {
    let (english, chinese) = (catalogue("en"), catalogue("zh"));
    assert_eq!(english.keys().collect::<Vec<_>>(), chinese.keys().collect::<Vec<_>>());
    let places = |text: &str| {
        text.split('{')
            .skip(1)
            .map(|rest| rest.split('}').next().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    for (key, text) in &english {
        assert_eq!(places(text), places(&chinese[key]), "{key}");
    }
}

#[test]
fn every_problem_has_a_message_of_its_own() {
    // `no-answer` is not a problem of the server: the pages show it when a request got no answer.
    let known: BTreeSet<&str> =
        EXPLAINED.iter().map(|line| line.slug).chain(["no-answer"]).collect();
    for language in ["en", "zh"] {
        let catalogue = catalogue(language);
        let told: BTreeSet<&str> =
            catalogue.keys().filter_map(|key| key.strip_prefix("problem.")).collect();
        assert_eq!(told, known, "{language}");
        let texts: BTreeSet<&String> = catalogue
            .iter()
            .filter(|(key, _)| key.starts_with("problem."))
            .map(|(_, text)| text)
            .collect();
        assert_eq!(texts.len(), known.len(), "{language}: two problems have the same message");
    }
}

#[test]
fn every_message_is_used_and_every_one_used_is_there() {
    let (modules, english) = (modules(), catalogue("en"));
    for start in ["t(\"", "data-t=\"", "data-t=\\\""] {
        for rest in modules.split(start).skip(1) {
            // Skip other functions whose names end in t.
            let key = rest.split(['"', '\\']).next().unwrap();
            let is_key = key.contains('.') && !key.contains('/') && !key.starts_with('.')
                || ["no", "again", "days", "phone"].contains(&key);
            assert!(!is_key || english.contains_key(key), "no message for {key}");
        }
    }
    // The code composes these keys at run time.
    let composed = [
        "problem.",
        "detail.",
        "state.",
        "status.",
        "result.",
        "reason.",
        "country.",
        "allocation.",
        "action.",
    ];
    for key in english.keys().filter(|key| !composed.iter().any(|start| key.starts_with(start))) {
        assert!(
            modules.contains(&format!("\"{key}\"")) || modules.contains(&format!("\\\"{key}\\\"")),
            "{key} is not used"
        );
    }
}

#[test]
fn every_action_of_the_trail_has_a_message() {
    let kinds = flashsale::domain::ActionKind::ALL.map(|kind| format!("action.{}", kind.as_str()));
    let english = catalogue("en");
    let told = english.keys().filter(|key| key.starts_with("action."));
    assert_eq!(told.collect::<BTreeSet<_>>(), kinds.iter().collect());
}

#[test]
fn details_are_those_that_the_server_gives() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("shared/src");
    let sources = ["domain/phone.rs", "app/passwords.rs"]
        .map(|file| fs::read_to_string(shared.join(file)).unwrap())
        .join("");
    for key in catalogue("en").keys() {
        if let Some(detail) = key.strip_prefix("detail.") {
            assert!(sources.contains(&format!("\"{detail}\"")), "the server never says {detail:?}");
        }
    }
    let translated = catalogue("en").keys().filter(|key| key.starts_with("detail.")).count();
    // Without white space, because rustfmt may break a line before the text.
    let flat: String = sources.split_whitespace().collect();
    let given = flat.matches("#[error(\"").count() + flat.matches("returnweak(\"").count();
    assert_eq!(translated, given, "some details of phone numbers and passwords are not translated");
}

#[test]
fn what_is_vendored_has_its_licence() {
    let vendor = folder().join("vendor");
    let notice = fs::read_to_string(vendor.join("NOTICE.md")).unwrap();
    for entry in fs::read_dir(vendor)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        let name = entry.file_name().unwrap().to_str().unwrap();
        assert!(entry.join("LICENSE").is_file(), "{name} has no licence");
        assert!(notice.contains(&format!("| {name} | ")), "{name} is not in NOTICE.md");
    }
}
