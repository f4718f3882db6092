//! The frame around every page: head, navigation, and the place that a module fills.

use std::collections::BTreeSet;

use super::{
    Site,
    files::{self, Ready},
};

/// What stands in a page until its module has filled it, and without scripts for good.
pub const WAITING: &str = "<noscript><p class=\"alert alert-warning\">These pages need JavaScript. Whatever they do can also be done \
                           through the interface under <a href=\"/api/sales\">/api</a>.</p></noscript>";

/// One page.
pub struct Page<'a> {
    /// The module that brings it to life, a path in the folder of the pages.
    pub module: &'a str,
    /// Until the module gives one in the reader's language. Both texts are ours: nothing is escaped.
    pub title: &'a str,
    pub main: &'a str,
}

impl Page<'_> {
    /// The page with the layout around it.
    pub fn render(&self, site: &Site) -> Ready {
        let layout = files::text("layout.html").expect("the layout is among the files");
        let address = |path: &str| format!("/assets/{}/{path}", files::version());
        let modules = modules(self.module);
        // The page's own, and those of vendored modules, lie beside their modules.
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
        // Named here, so that the browser need not read one module to learn of the next.
        let preloads: String = modules
            .iter()
            .map(|path| format!("<link rel=\"modulepreload\" href=\"{}\">", address(path)))
            .collect();
        let html = layout
            .replace("{captcha}", if site.captcha { "on" } else { "off" })
            .replace("{assets}", address("").trim_end_matches('/'))
            .replace("{styles}", &styles)
            .replace("{preloads}", &preloads)
            .replace("{module}", &address(self.module))
            .replace("{title}", self.title)
            .replace("{main}", self.main);
        Ready::new("text/html; charset=utf-8", html.into())
    }
}

/// A module and all that it imports at its head, directly or not.
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

/// A relative address in a file of `folder`.
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
