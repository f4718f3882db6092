//! The files of `local-emulator/pages`, compiled into the binary, each compressed and hashed once.
//! A debug build reads them from the disk each time, so that a change needs no new build.

use std::{collections::HashMap, io::Write as _, sync::LazyLock};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use flashsale::http::{has_tag, takes_gzip};
use flate2::{Compression, write::GzEncoder};
use ring::digest;
use rust_embed::RustEmbed;

/// The pages' content security policy: nothing inline and nothing from other sites, except
/// pictures, whose addresses operators choose. `blob:` is for sound that a page has fetched.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data: https:; connect-src 'self'; \
                      media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The policy, with the origins from which a captcha provider's widget is loaded.
pub fn policy(origins: &[&str]) -> HeaderValue {
    if origins.is_empty() {
        return HeaderValue::from_static(POLICY);
    }
    let origins = origins.join(" ");
    let mut policy = POLICY.to_owned();
    for directive in ["script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
        policy = policy.replace(directive, &format!("{directive} {origins}"));
    }
    HeaderValue::try_from(format!("{policy}; frame-src {origins}"))
        .expect("the configuration has checked the origins")
}

/// Browsers may cache the file, but revalidate it each time: 304 if nothing has changed.
const ASK_AGAIN: &str = "no-cache";
/// For addresses that contain the version.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

#[derive(RustEmbed)]
#[folder = "pages/"]
struct Embedded;

/// A file ready to send. Cheap to clone.
#[derive(Clone)]
pub struct Ready {
    content_type: &'static str,
    plain: Bytes,
    /// Only if it is smaller than the plain file.
    gzip: Option<Bytes>,
    tag: HeaderValue,
    policy: HeaderValue,
}

/// A file for browsers, by its path in the folder.
pub fn find(path: &str) -> Option<Ready> {
    static ALL: LazyLock<HashMap<String, Ready>> = LazyLock::new(|| {
        Embedded::iter().filter_map(|path| Some((path.to_string(), read(&path)?))).collect()
    });
    if cfg!(debug_assertions) { read(path) } else { ALL.get(path).cloned() }
}

/// The text of a file that is compiled in or lies in the source tree.
pub fn text(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&Embedded::get(path)?.data).into_owned())
}

/// A name that changes with any of the files, so that browsers may cache files with this version in
/// their address.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut all = digest::Context::new(&digest::SHA256);
        for (path, file) in
            Embedded::iter().filter_map(|path| Some((path.clone(), Embedded::get(&path)?)))
        {
            all.update(path.as_bytes());
            all.update(&file.metadata.sha256_hash());
        }
        format!("v-{}", hex(&all.finish()))
    });
    &VERSION
}

fn read(path: &str) -> Option<Ready> {
    let content_type = match path.rsplit_once('.')?.1 {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => return None,
    };
    let data = Embedded::get(path)?.data;
    Some(Ready::new(
        content_type,
        match data {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => bytes.into(),
        },
    ))
}

impl Ready {
    pub fn new(content_type: &'static str, plain: Bytes) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let packed = encoder
            .write_all(&plain)
            .and_then(|()| encoder.finish())
            .expect("writing to memory does not fail");
        let gzip = (packed.len() < plain.len()).then(|| packed.into());
        // Weak, because the compressed and the plain file have the same tag.
        let tag = format!("W/\"{}\"", hex(&digest::digest(&digest::SHA256, &plain)));
        let tag =
            HeaderValue::try_from(tag).expect("hexadecimal digits and quotes make a header value");
        Self { content_type, plain, gzip, tag, policy: HeaderValue::from_static(POLICY) }
    }

    /// The same with another content security policy.
    pub fn under(self, policy: HeaderValue) -> Self {
        Self { policy, ..self }
    }

    /// For an address whose content may change.
    pub fn answer(&self, request: &HeaderMap) -> Response {
        self.with(request, ASK_AGAIN)
    }

    /// For an address whose content never changes.
    pub fn answer_for_good(&self, request: &HeaderMap) -> Response {
        self.with(request, FOR_GOOD)
    }

    fn with(&self, request: &HeaderMap, keep: &'static str) -> Response {
        let mut response = if has_tag(request, self.tag.to_str().unwrap_or_default()) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let (body, packed) = match &self.gzip {
                Some(gzip) if takes_gzip(request) => (gzip, true),
                _ => (&self.plain, false),
            };
            let mut response = body.clone().into_response();
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if packed {
                response
                    .headers_mut()
                    .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in [(header::CACHE_CONTROL, keep), (header::VARY, "accept-encoding")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The first bytes of a hash: enough to tell versions of our own files apart.
fn hex(hash: &digest::Digest) -> String {
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
