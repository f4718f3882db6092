// The server's clock. The visitor's may be wrong and may be set while the page is open; the time since the page was opened
// can't be, so the server's time is kept as a distance from that.

import { announce, say } from "./dom.js";
import { clock, words } from "./format.js";
import { t } from "./i18n.js";

// A better sample is one whose answer came faster; after this long any is better.
const SAMPLE_LIFE_MS = 60_000;

let best = null;

// Takes a `server_time` from an answer to a request made between the two moments (of performance.now()).
export function sample(serverTime, sentAt, receivedAt) {
  const error = (receivedAt - sentAt) / 2;
  if (best === null || error <= best.error || receivedAt - best.at > SAMPLE_LIFE_MS) {
    best = { offset: Date.parse(serverTime) - (sentAt + receivedAt) / 2, error, at: receivedAt };
  }
}

// Some systems stop counting while they sleep: after a pause the next sample counts whatever it is.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && best !== null) best.error = Infinity;
});

export const now = () => (best === null ? Date.now() : performance.now() + best.offset);

// Seconds left at which those who do not see the countdown are told.
const MARKS = [3600, 600, 300, 60, 30, 10];

// Shows in `element` how long it is until `until` (text), and calls `done` at that moment of the server's clock. Returns what
// stops it. With `heard`, a message key, the marks above are announced.
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
