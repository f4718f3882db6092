// The server's clock. The visitor's clock may be wrong and may be set while the page is open. The
// time since the page was opened can't be set, so the server's time is kept as an offset to it.

import { announce, say } from "./dom.js";
import { clock, words } from "./format.js";
import { t } from "./i18n.js";

// A sample replaces another if its answer came faster; after this time any sample does.
const SAMPLE_LIFE_MS = 60_000;

let best = null;

// Takes a sample: the `server_time` in the answer to a request, and the times (of
// performance.now()) between which the request was made.
export function sample(serverTime, sentAt, receivedAt) {
  const error = (receivedAt - sentAt) / 2;
  if (best === null || error <= best.error || receivedAt - best.at > SAMPLE_LIFE_MS) {
    best = { offset: Date.parse(serverTime) - (sentAt + receivedAt) / 2, error, at: receivedAt };
  }
}

// Some systems stop performance.now() while they sleep, so the next sample after a pause is always
// taken.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && best !== null) best.error = Infinity;
});

export const now = () => (best === null ? Date.now() : performance.now() + best.offset);

// Remaining seconds at which the countdown is announced to screen readers.
const MARKS = [3600, 600, 300, 60, 30, 10];

// Shows in `element` the time left until `until` (text), and calls `done` at that time of the
// server's clock. Returns a function that stops it. If `heard`, a message key, is given, the
// countdown is announced at the times above.
export function countdown(element, until, done, heard = null) {
  const end = Date.parse(until);
  let timer = null;
  let before = Infinity;
  const step = () => {
    const left = end - now();
    say(element, clock(left));
    if (left <= 0) {
      done();
      return;
    }
    const seconds = Math.ceil(left / 1000);
    const mark = heard && MARKS.find((mark) => seconds <= mark && before > mark);
    if (mark && before !== Infinity) announce(t(heard, { left: words(mark) }));
    before = seconds;
    timer = setTimeout(step, left % 1000 || 1000);
  };
  step();
  return () => clearTimeout(timer);
}
