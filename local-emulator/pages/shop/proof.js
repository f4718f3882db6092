// Recomputes a draw's commitment and the user's own score, as API.md's section on draws defines them.

import { el } from "../common/dom.js";
import { number } from "../common/format.js";
import { t } from "../common/i18n.js";

const bytesOf = (hex) => Uint8Array.from(hex.match(/../g), (digits) => Number.parseInt(digits, 16));
const hexOf = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const idBytes = (id) => bytesOf(id.replaceAll("-", ""));

async function hmac(keyBytes, message) {
  const key = await crypto.subtle.importKey("raw", keyBytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, message));
}

// SHA-256 of a seed, both in hexadecimal.
export const hashOf = async (seed) => hexOf(await crypto.subtle.digest("SHA-256", bytesOf(seed)));

// The score of a user's entry: the first 52 bits of HMAC-SHA256(seed, sale_id ‖ user_id). With a
// beacon, the key is HMAC-SHA256(seed, value) instead of the seed.
export async function scoreOf({ seed, beacon_value }, saleId, userId) {
  const key = beacon_value === undefined ? bytesOf(seed) : await hmac(bytesOf(seed), new TextEncoder().encode(beacon_value));
  const tag = await hmac(key, new Uint8Array([...idBytes(saleId), ...idBytes(userId)]));
  return Number(new DataView(tag.buffer).getBigUint64(0) >> 12n);
}

// The checks as [message key, whether it holds]. `promised` are the hashes that were published before
// the draw.
async function checks(result, saleId, userId, promised) {
  const found = [
    ["proof.promised", promised.every((hash) => hash === result.seed_hash)],
    ["proof.seed", (await hashOf(result.seed)) === result.seed_hash],
  ];
  if (result.own?.score !== undefined) {
    found.push(["proof.score", (await scoreOf(result, saleId, userId)) === result.own.score]);
  }
  return found;
}

const fact = (list, label, value, code = true) => list.append(el("dt", {}, label), el("dd", {}, code ? el("code", {}, value) : value));

// The result of a draw with its proof, as elements.
export async function proof(result, saleId, userId, promised) {
  const list = el("dl", { class: "mb-2" });
  const { own } = result;
  fact(list, t("proof.entries"), number(result.entries), false);
  fact(list, t("proof.invited"), number(result.cutoff), false);
  // Places are counted from 0 by the server.
  if (own?.place !== undefined) fact(list, t("proof.place"), number(own.place + 1), false);
  if (own?.score !== undefined) fact(list, t("proof.own-score"), String(own.score));
  else if (own) fact(list, t("proof.own-score"), t("proof.late"), false);
  fact(list, t("proof.of-seed"), result.seed);
  fact(list, t("proof.hash"), result.seed_hash);
  if (result.beacon_value !== undefined) fact(list, result.beacon, result.beacon_value);
  // Browsers offer cryptography only to pages that come over TLS or from this machine.
  if (!globalThis.crypto?.subtle) return [list, el("p", { class: "mb-0" }, t("proof.not-here"))];
  const lines = (await checks(result, saleId, userId, promised)).map(([key, holds]) =>
    el(
      "li",
      { "data-check": key, "data-holds": String(holds), class: holds ? "text-success-emphasis" : "text-danger-emphasis" },
      el("span", { "aria-hidden": "true" }, holds ? "✓ " : "✗ "),
      el("span", { class: "visually-hidden" }, t(holds ? "proof.right" : "proof.wrong")),
      " ",
      t(key),
    ),
  );
  return [list, el("ul", { class: "list-unstyled mb-0", id: "checks" }, ...lines)];
}
