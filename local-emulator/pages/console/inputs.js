// What the inputs of a sale's forms hold.

import { t } from "../common/i18n.js";

// A time of the server's clock in the format of an input: in the reader's time zone, to the second.
export function localInput(ms) {
  const moment = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return moment.toISOString().slice(0, 19);
}

export const whole = (input) => (input.control.value === "" ? null : Number(input.control.value));

export const time = (input) => (input.control.value === "" ? null : new Date(input.control.value).toISOString());

const isUnreadable = ({ control }) =>
  control.validity.badInput || (control.type === "datetime-local" && control.value !== "" && Number.isNaN(Date.parse(control.value)));

// Marks the first field whose text can't be read, such as half a date or the year 20266. The value
// of half a date is empty, and an empty field would remove a rule.
export function refuseUnreadable(fields) {
  const wrong = fields.find((one) => !one.control.closest("[hidden]") && isUnreadable(one));
  if (wrong === undefined) return false;
  wrong.refuse(t("console.field-unreadable"));
  wrong.control.focus();
  return true;
}
