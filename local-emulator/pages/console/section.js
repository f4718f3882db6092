// A section of the console: a heading, a status line and the content.

import { explain, persist } from "../common/api.js";
import { alertBox, el } from "../common/dom.js";

export function section(id, title, ...children) {
  const status = el("div", { role: "status" });
  const body = el("div", {});
  body.append(...children);
  const element = el("section", { class: "border-top mt-4 pt-3", id, "aria-labelledby": `${id}-title` });
  element.append(el("h2", { class: "h4", id: `${id}-title` }, title), status, body);
  // Runs an action and shows its result; resolves with the answer, or with undefined after a
  // refusal.
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
