// A part of the console: a heading, a line for what goes on, and whatever the part holds.

import { explain, persist } from "../common/api.js";
import { alertBox, el } from "../common/dom.js";

export function section(id, title, ...children) {
  const status = el("div", { role: "status" });
  const body = el("div", {});
  body.append(...children);
  const element = el("section", { class: "border-top mt-4 pt-3", id, "aria-labelledby": `${id}-title` });
  element.append(el("h2", { class: "h4", id: `${id}-title` }, title), status, body);
  // Does something and shows what came of it; resolves with the answer, or with undefined after a refusal.
  const act = async (action) => {
    status.replaceChildren();
    try {
      return await persist(action, (text) => status.replaceChildren(text), 15_000);
    } catch (error) {
      status.replaceChildren(alertBox("danger", explain(error)));
      return undefined;
    }
  };
  return { element, body, status, act };
}
