//! The layout of every page: head, navigation, and the element that a module fills.

use std::collections::BTreeSet;

use super::{
    Site,
    files::{self, Ready},
};

/// The content of a page until its module has filled it; without scripts, its only content.
pub const WAITING: &str = "<noscript><p class=\"alert alert-warning\">These pages need JavaScript. Whatever they do can also be done \
                           through the interface under <a href=\"/api/sales\">/api</a>.</p></noscript>";

/// One page.
pub struct Page<'a> {
    /// The page's entry module, a path in the folder of the pages.
    pub module: &'a str,
    /// Replaced by the module with one in the reader's language. `title` and `main` are not
    /// escaped: they must be constants of ours.
    pub title: &'a str,
    pub main: &'a str,
}

impl Page<'_> {
    /// The page with the layout around it.
    pub fn render(&self, site: &Site) -> Ready {
        let layout = files::text("layout.html").expect("the layout is among the files");
        let address = |path: &str| format!("/assets/{}/{path}", files::version());
        let modules = modules(self.module);
        // The style sheets of the page and of vendored modules are beside their modules.
        let vendored = modules
            .iter()
            .filter(|path| path.starts_with("vendor/"))
            .map(|path| path.replace(".esm.js", ".min.css"));
        let own = ["vendor/bootstrap/bootstrap.min.css", "common/base.css"]
            .map(str::to_owned)
            .into_iter();
        let styles: String = own
            .chain(vendored)
            .chain([self.module.replace(".js", ".css")])
            .filter(|path| files::text(path).is_some())
            .map(|path| format!("<link rel=\"stylesheet\" href=\"{}\">", address(&path)))
            .collect();
        // All modules are named here, so that the browser loads them in parallel and need not parse
        // one to find the next.
        let preloads: String = modules
            .iter()
            .map(|path| format!("<link rel=\"modulepreload\" href=\"{}\">", address(path)))
            .collect();
        let html = layout
            .replace("{captcha}", site.captcha)
            .replace("{phone_codes}", on_or_off(site.phone_codes))
            .replace("{assets}", address("").trim_end_matches('/'))
            .replace("{styles}", &styles)
            .replace("{preloads}", &preloads)
            .replace("{module}", &address(self.module))
            .replace("{title}", self.title)
            .replace("{main}", self.main);
        Ready::new("text/html; charset=utf-8", html.into()).under(site.policy.clone())
    }
}

const fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A module and all its static imports, direct and indirect.
fn modules(entry: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![entry.to_owned()];
    while let Some(path) = waiting.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        let text = files::text(&path).unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for import in
            text.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from "))
        {
            if let Some(name) = import.split('"').nth(1) {
                waiting.push(resolve(folder, name));
            }
        }
    }
    found
}

/// Resolves a relative address in a file of `folder`.
pub fn resolve(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in name.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
