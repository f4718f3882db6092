//! The pages for people: the shop, the operator's console, and an explanation of every problem.
//!
//! The files are in `local-emulator/pages`: a layout, style sheets, and ES modules that call the
//! same API as any other client. The server fills in only the layout, so a page is the same for all
//! users and needs no store. Deliberately absent: templates with data in them, a build step, and
//! anything from another site.

mod files;
mod layout;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    future::{Ready, ready},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue},
    response::{IntoResponse as _, Response},
    routing::get,
};
use flashsale::{
    config::{CaptchaMode, Config},
    problem::{EXPLAINED, Explained, Problem},
};

use layout::Page;

pub fn router(config: &Config) -> Router {
    let origins = match config.captcha {
        CaptchaMode::Provider => config.captchas.provider.origins(),
        _ => Vec::new(),
    };
    let site = Site {
        captcha: config.captcha.as_str(),
        phone_codes: config.verifies_phones(),
        policy: files::policy(&origins),
        made: Arc::default(),
    };
    let (list, one) = (site.clone(), site.clone());
    Router::new()
        .route("/", get(site.page("shop/sales.js")))
        .route("/sales/{sale_id}", get(site.page("shop/sale.js")))
        .route("/sign-in", get(site.page("shop/sign-in.js")))
        .route("/register", get(site.page("shop/register.js")))
        .route("/forgot-password", get(site.page("shop/forgot-password.js")))
        .route("/orders", get(site.page("shop/orders.js")))
        .route("/orders/{order_id}", get(site.page("shop/order.js")))
        .route("/console", get(site.page("console/console.js")))
        .route("/problems", get(move |headers: HeaderMap| ready(list.problems(&headers))))
        .route(
            "/problems/{slug}",
            get(move |Path(slug): Path<String>, headers: HeaderMap| {
                ready(one.problem(&slug, &headers))
            }),
        )
        .route("/assets/{*path}", get(asset))
}

/// The part of the configuration that the pages need, and the rendered pages.
#[derive(Clone)]
struct Site {
    /// Which captchas are required. Without this a page would learn it only from a refused
    /// request.
    captcha: &'static str,
    /// Whether phone numbers are verified.
    phone_codes: bool,
    /// The content security policy.
    policy: HeaderValue,
    /// The pages made so far, by address.
    made: Arc<Mutex<HashMap<&'static str, files::Ready>>>,
}

impl Site {
    /// A page that one module fills. It includes the style sheet of the same name beside the
    /// module.
    fn page(
        &self,
        module: &'static str,
    ) -> impl Fn(HeaderMap) -> Ready<Response> + Clone + Send + Sync + 'static {
        let site = self.clone();
        move |headers| {
            ready(
                site.once(module, || {
                    Page { module, title: "flashsale", main: layout::WAITING }.render(&site)
                })
                .answer(&headers),
            )
        }
    }

    /// A page is rendered once; by a debug build each time, because its files may have changed.
    fn once(&self, name: &'static str, make: impl FnOnce() -> files::Ready) -> files::Ready {
        if cfg!(debug_assertions) {
            return make();
        }
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_insert_with(make)
            .clone()
    }

    fn problems(&self, headers: &HeaderMap) -> Response {
        self.once("problems", || self.make_problems()).answer(headers)
    }

    fn make_problems(&self) -> files::Ready {
        let rows: String = EXPLAINED
            .iter()
            .map(|line| {
                format!(
                    "<tr data-slug=\"{slug}\"><td><a href=\"/problems/{slug}\"><code>{slug}</code></a></td><td>{}</td>\
                     <td class=\"problem-title\">{}</td></tr>",
                    line.status,
                    line.title,
                    slug = line.slug
                )
            })
            .collect();
        let main = format!(
            "<h1 data-t=\"problems.title\">Problems</h1>\
             <p data-t=\"problems.lead\">Every refusal that the interface gives, and what it means.</p>\
             <div class=\"table-responsive\"><table class=\"table\"><thead><tr><th scope=\"col\" data-t=\"problems.slug\">Problem</th>\
             <th scope=\"col\" data-t=\"problems.status\">Status</th><th scope=\"col\" data-t=\"problems.meaning\">Meaning</th></tr></thead>\
             <tbody>{rows}</tbody></table></div>"
        );
        Page { module: "shop/problems.js", title: "Problems", main: &main }.render(self)
    }

    fn problem(&self, slug: &str, headers: &HeaderMap) -> Response {
        match EXPLAINED.iter().find(|line| line.slug == slug) {
            Some(line) => self.once(line.slug, || self.make_problem(line)).answer(headers),
            None => Problem::NotFound.into_response(),
        }
    }

    /// The texts are constants without characters that HTML requires to escape.
    fn make_problem(&self, line: &Explained) -> files::Ready {
        let main = format!(
            "<article data-slug=\"{slug}\"><h1 class=\"problem-title\" lang=\"en\">{title}</h1><p><code>{slug}</code>, {status}</p>\
             <p class=\"problem-text\" hidden></p><p lang=\"en\">{meaning}</p></article>\
             <p><a href=\"/problems\" data-t=\"problems.all\">All problems</a></p>",
            slug = line.slug,
            title = line.title,
            status = line.status,
            meaning = line.meaning,
        );
        Page { module: "shop/problems.js", title: line.title, main: &main }.render(self)
    }
}

/// A style sheet, a module or a picture. In a page's links the first part of the path is the
/// version.
async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let (path, versioned) = match path.split_once('/') {
        Some((first, rest)) if first == files::version() => (rest, true),
        // The address of another version, from a page loaded earlier or from another instance:
        // answered with the current file, which must not be cached.
        Some((first, rest)) if first.starts_with("v-") => (rest, false),
        _ => (path.as_str(), false),
    };
    match files::find(path) {
        Some(file) if versioned && !cfg!(debug_assertions) => file.answer_for_good(&headers),
        Some(file) => file.answer(&headers),
        None => Problem::NotFound.into_response(),
    }
}
