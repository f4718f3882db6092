// A chart of the last minutes, drawn by uPlot. The latest values are also available as text.

import { el } from "../common/dom.js";
import { number } from "../common/format.js";
import uPlot from "../vendor/uplot/uPlot.esm.js";

const HEIGHT = 180;
const SECONDS = 120;

// `series` holds labels and colours. `paint(times, values)` takes seconds since 1970 and one list
// of values per series.
export function chart(title, series) {
  const canvas = el("div", { class: "chart" });
  const figure = el("figure", { class: "mt-3 mb-0", role: "img" }, el("figcaption", { class: "h6" }, title), canvas);
  let plot = null;

  const ink = () => getComputedStyle(document.body).color;
  const axis = () => ({ stroke: ink(), grid: { stroke: "#8886", width: 1 } });
  const make = (data) => {
    plot = new uPlot(
      {
        width: Math.max(canvas.clientWidth, 200),
        height: HEIGHT,
        series: [{}, ...series.map((one) => ({ ...one, width: 2, spanGaps: true }))],
        axes: [axis(), axis()],
        scales: {
          // Keep the same width from the first second, so that the chart does not jump while it
          // fills.
          x: { range: (_, first, last) => [last - SECONDS, last] },
          y: { range: (_, low, high) => [0, Math.max(high ?? 1, 1)] },
        },
        cursor: { show: false },
        legend: { live: false },
      },
      data,
      canvas,
    );
  };
  addEventListener("resize", () => plot?.setSize({ width: Math.max(canvas.clientWidth, 200), height: HEIGHT }));

  const paint = (times, values) => {
    if (plot === null) make([times, ...values]);
    else plot.setData([times, ...values]);
    const latest = series.map(({ label }, at) => `${label}: ${values[at].at(-1) === null ? "–" : number(values[at].at(-1))}`);
    figure.setAttribute("aria-label", `${title}. ${latest.join(", ")}`);
  };
  return { element: figure, paint };
}
