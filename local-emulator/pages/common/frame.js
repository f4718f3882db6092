// The frame around every page: texts in the reader's language, the signed-in user, and the choice
// of language and colours.

import { current, forget, signInAddress } from "./account.js";
import { call, explain, persist } from "./api.js";
import { alertBox, button, el, link } from "./dom.js";
import { LANGUAGES, language, t } from "./i18n.js";
import { local } from "./store.js";

export const main = document.getElementById("main");

// Sets the page's title and frame. Call it first, once all texts are loaded.
export function start(title) {
  entitle(title);
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  if (current()?.role === "admin") {
    const anchor = el("a", { class: "nav-link", href: "/console" }, t("nav.console"));
    document.querySelector("header .nav").append(el("li", {}, anchor));
  }
  for (const anchor of document.querySelectorAll("header .nav-link")) {
    if (anchor.pathname === location.pathname) anchor.setAttribute("aria-current", "page");
  }
  paintTools();
}

export function entitle(title) {
  document.title = title === "" ? "flashsale" : `${title} – flashsale`;
}

function paintTools() {
  const other = Object.keys(LANGUAGES).find((name) => name !== language);
  const inOther = button("sm btn-outline-secondary", LANGUAGES[other], () => {
    local.set("language", other);
    location.reload();
  });
  inOther.lang = other;
  inOther.id = "language";
  const colours = button("sm btn-outline-secondary", "◐", () => {
    const root = document.documentElement;
    root.dataset.bsTheme = root.dataset.bsTheme === "dark" ? "light" : "dark";
    local.set("theme", root.dataset.bsTheme);
  });
  colours.setAttribute("aria-label", t("nav.colours"));
  colours.title = t("nav.colours");
  colours.id = "colours";
  const person = current()
    ? button("sm btn-outline-secondary", t("nav.sign-out"), () => signOut("/api/sessions/current"), { id: "sign-out" })
    : el("a", { class: "btn btn-sm btn-primary", href: onSignInPage() ? location.href : signInAddress() }, t("nav.sign-in"));
  document.getElementById("tools").replaceChildren(inOther, colours, person);
}

const onSignInPage = () => ["/sign-in", "/register"].includes(location.pathname);

// Ends this session or, with the other path, all of the user's sessions.
export async function signOut(address) {
  try {
    await persist(() => call("DELETE", address), (text) => showNotice(text), 10_000);
  } catch (error) {
    if (error.slug !== "unauthenticated") {
      showNotice(explain(error));
      return;
    }
  }
  forget();
  location.assign("/");
}

// Shows a line above the rest of the page; an empty text removes it.
export function showNotice(text) {
  document.getElementById("notice")?.remove();
  if (text === "") return;
  const notice = alertBox("danger", text);
  notice.id = "notice";
  main.prepend(notice);
}

// Shows why the page's content could not be loaded, and what to do.
export function showFailure(error) {
  const parts = [alertBox("danger", explain(error))];
  if (error.slug === "unauthenticated") {
    paintTools();
    parts.push(link(signInAddress(), t("nav.sign-in"), "primary"));
  } else if (error.slug !== "not-found") {
    parts.push(button("primary", t("reload"), () => location.reload()));
  }
  main.replaceChildren(el("h1", {}, document.title.split(" – ")[0]), ...parts);
}

// A page from the browser's back/forward cache shows outdated content.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
