// Creates elements without templates: text is never parsed as HTML.

import { t } from "./i18n.js";

// el("a", { class: "btn", href, onclick }, "text", child, …). Attributes and children that are
// null, undefined or false are omitted.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Sets a text only if it differs, because screen readers announce every assignment.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const alertBox = (kind, ...children) => el("div", { class: `alert alert-${kind}`, role: kind === "danger" ? "alert" : null }, ...children);

export const button = (kind, label, onclick, more = {}) => el("button", { type: "button", class: `btn btn-${kind}`, onclick, ...more }, label);

export const link = (href, label, kind = null) => el("a", { href, class: kind && `btn btn-${kind}` }, label);

// Makes a button available or unavailable. An unavailable button keeps the keyboard focus.
export function enable(element, enabled) {
  element.setAttribute("aria-disabled", String(!enabled));
}

export const isEnabled = (element) => element.getAttribute("aria-disabled") !== "true";

// Announces a text to screen readers. Texts in quick succession are read together.
export function announce(text) {
  const live = document.getElementById("live");
  live.textContent = "";
  setTimeout(() => say(live, text), 50);
}

// Asks for confirmation of an irreversible action. Resolves with true or false; Escape means false.
export function confirm(question, yes) {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      { "aria-labelledby": "question" },
      el("p", { id: "question" }, question),
      el(
        "div",
        { class: "d-flex gap-2 flex-wrap" },
        button("danger", yes, () => dialog.close("yes")),
        button("outline-secondary", t("no"), () => dialog.close("")),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
