// Money, times and durations in the reader's notation.

import { locale, t } from "./i18n.js";

export function money(minorUnits, currency) {
  const format = new Intl.NumberFormat(locale, { style: "currency", currency });
  return format.format(minorUnits / 10 ** format.resolvedOptions().maximumFractionDigits);
}

export const number = (value) => new Intl.NumberFormat(locale).format(value);

const dateTime = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

export const date = (text) => dateTime.format(new Date(text));

// 04:05, 3:04:05, 2 d 03:04:05: rounded up, so that 00:00 shows only at the end.
export function clock(ms) {
  const total = Math.max(0, Math.ceil(ms / 1000));
  const two = (value) => String(value).padStart(2, "0");
  const [days, hours, minutes, seconds] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60, total % 60];
  if (days > 0) return t("days", { days, clock: `${two(hours)}:${two(minutes)}:${two(seconds)}` });
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds)}` : `${two(minutes)}:${two(seconds)}`;
}

// "5 minutes", for screen readers.
export function words(seconds) {
  const [value, unit] = seconds >= 3600 ? [seconds / 3600, "hour"] : seconds >= 60 ? [seconds / 60, "minute"] : [seconds, "second"];
  return new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: "long" }).format(Math.round(value));
}
