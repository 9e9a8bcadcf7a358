/* page-charts.js: the small charts of the last two minutes: tasks a second, the queue, and how long tasks wait and run. */

import { count, drawn, element, onceAFrame, seconds, setText } from "./page-dom.js";

const KEPT = 120;
const WIDTH = 240;
const HEIGHT = 48;
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const perSecond = (value) => (value === null ? "–" : short.format(value));

const CHARTS = [
  { title: "Tasks a second", lines: [["finished", "finished"], ["accepted", "accepted"]], format: perSecond },
  { title: "In the queue", lines: [["queued", "waiting"], ["unfinished", "unfinished"]], format: (value) => count.format(value ?? 0) },
  { title: "Wait for a worker", lines: [["wait_p50", "p50"], ["wait_p99", "p99"]], format: seconds },
  { title: "Run time", lines: [["run_p50", "p50"], ["run_p99", "p99"]], format: seconds },
];

export class Charts {
  #rows = [];
  #columns = [];
  #charts;

  constructor(root, handoff) {
    this.#charts = CHARTS.map((chart) => new Chart(chart));
    root.append(...this.#charts.map(({ node }) => node));
    const draw = onceAFrame(() => this.#charts.forEach((chart) => chart.draw(this.#rows, this.#columns)));
    handoff.on("watch", ({ columns, history, second }) => {
      if (columns) [this.#columns, this.#rows] = [columns, history];
      if (second && second[0] !== this.#rows.at(-1)?.[0]) this.#rows = [...this.#rows, second].slice(-KEPT);
      if (columns || second) draw();
    });
  }
}

class Chart {
  #chart;
  #paths;
  #values;

  constructor(chart) {
    this.#chart = chart;
    this.node = element("figure", "chart");
    const caption = element("figcaption");
    caption.append(element("span", "title", chart.title));
    this.#values = chart.lines.map(([, label], index) => this.#value(caption, label, index));
    const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.#paths = chart.lines.map((_, index) => drawn("path", { class: index ? "second" : "first" }));
    picture.append(...this.#paths.toReversed());
    this.node.append(caption, picture);
  }

  #value(caption, label, index) {
    const value = element("span", index ? "value second" : "value first");
    value.append(element("b", "", "–"), ` ${label}`);
    caption.append(value);
    return value.firstChild;
  }

  draw(rows, columns) {
    const { lines, format } = this.#chart;
    const places = lines.map(([name]) => columns.indexOf(name));
    const top = Math.max(1e-6, ...rows.flatMap((row) => places.map((place) => row[place] ?? 0))) * 1.08;
    places.forEach((place, index) => {
      setText(this.#values[index], format(rows.at(-1)?.[place] ?? null));
      this.#paths[index].setAttribute("d", curve(rows.map((row) => row[place]), top));
    });
  }
}

/** The newest at the right; where nothing was measured, there is a gap. */
function curve(values, top) {
  const step = WIDTH / (KEPT - 1);
  const left = WIDTH - (values.length - 1) * step;
  let pen = "M";
  return values.map((value, index) => {
    if (value === null) {
      pen = "M";
      return "";
    }
    const point = `${pen}${(left + index * step).toFixed(1)} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`;
    pen = "L";
    return point;
  }).join("");
}
