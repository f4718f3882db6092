// Forms that show an error beside its field.

import { explain, isPassing, persist, Refusal } from "./api.js";
import { alertBox, button, el, enable, isEnabled } from "./dom.js";

// A labelled input. `refuse(text)` marks it as invalid and shows the text; without a text it
// removes the mark.
export function field(name, label, attributes, { hint = null, input = null } = {}) {
  const control = input ?? el("input", { class: "form-control", ...attributes });
  control.id = name;
  control.name = name;
  const error = el("div", { class: "invalid-feedback", id: `${name}-error` });
  const help = hint && el("div", { class: "form-text", id: `${name}-hint` }, hint);
  const described = `${help ? `${name}-hint ` : ""}${name}-error`;
  control.setAttribute("aria-describedby", described);
  const element = el("div", { class: "mb-3" }, el("label", { class: "form-label", for: name }, label), control, help, error);
  const refuse = (text = "") => {
    control.classList.toggle("is-invalid", text !== "");
    if (text === "") control.removeAttribute("aria-invalid");
    else control.setAttribute("aria-invalid", "true");
    error.textContent = text;
  };
  control.addEventListener("input", () => refuse());
  return { element, control, refuse };
}

// A form with at most one request at a time. `send(told)` makes the request; `place(error)` returns
// the field that a refusal belongs to, or null.
export function form(fields, label, send, place) {
  const status = el("p", { class: "mt-3", role: "status" });
  const trouble = el("div");
  const submit = el("button", { type: "submit", class: "btn btn-primary btn-lg w-100" }, label);
  const element = el("form", { novalidate: true, class: "narrow" }, ...fields, submit, status, trouble);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!isEnabled(submit)) return;
    enable(submit, false);
    trouble.replaceChildren();
    try {
      await send((text) => (status.textContent = text));
    } catch (error) {
      status.textContent = "";
      const wrong = error instanceof Refusal && !isPassing(error) ? place(error) : null;
      if (wrong) {
        wrong.refuse(explain(error));
        wrong.control.focus();
      } else {
        trouble.replaceChildren(alertBox("danger", explain(error)));
      }
    } finally {
      enable(submit, true);
    }
  });
  return element;
}

// A button with at most one action at a time, whose progress is shown. `act(told)` is the action.
export function actionButton(kind, label, act, status, attributes = {}) {
  const element = button(
    kind,
    label,
    async () => {
      if (!isEnabled(element)) return;
      enable(element, false);
      status.replaceChildren();
      const told = (text) => status.replaceChildren(text);
      try {
        await act((action) => persist(action, told));
      } catch (error) {
        status.replaceChildren(alertBox("danger", explain(error)));
      }
      enable(element, true);
    },
    attributes,
  );
  return element;
}
