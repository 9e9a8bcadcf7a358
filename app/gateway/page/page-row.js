/* page-row.js: how one task is drawn as a row: its function, its state, how far it is or when it will be, and for how long. */

import { FINAL } from "./handoff-task.js";
import { clock, count, element, seconds, setText, stateName, time } from "./page-dom.js";

export function makeRow() {
  const node = element("div", "row");
  const button = element("button", "open");
  button.type = "button";
  const bar = element("span", "bar");
  bar.append(element("span", "fill"));
  for (const name of ["mark", "function", "what", "state", "time"]) button.append(element("span", name));
  button.querySelector(".mark").setAttribute("aria-hidden", "true");
  node.append(button, bar);
  return node;
}

export function drawRow(node, row) {
  const { progress, state } = row;
  if (node.dataset.state !== state) node.dataset.state = state;
  if (node.dataset.id !== row.id) node.dataset.id = row.id;
  setText(node.querySelector(".function"), row.function);
  setText(node.querySelector(".state"), stateName(state));
  setText(node.querySelector(".what"), describeRow(row));
  setText(node.querySelector(".time"), timeOf(row));
  const part = !FINAL.has(state) && progress?.total ? Math.min(1, progress.done / progress.total) : 0;
  node.querySelector(".bar").hidden = part === 0;
  node.querySelector(".fill").style.transform = `scaleX(${part})`;
}

/** What is worth knowing besides the state. */
export function describeRow({ state, progress, position, wait, due_at: due, id, attempt }) {
  if (FINAL.has(state)) return id;
  if (due) return `starts in ${seconds(Math.max(0, due - time.now()))}`;
  if (position !== undefined) {
    const before = position ? `${count.format(position)} before it` : "next";
    return wait === undefined ? before : `${before}, about ${seconds(wait)}`;
  }
  const again = attempt > 1 ? [`attempt ${attempt}`] : [];
  return [...again, amount(progress), progress?.note].filter(Boolean).join(" · ") || id;
}

export function amount(progress) {
  if (!progress) return "";
  return progress.total ? `${count.format(progress.done)} of ${count.format(progress.total)}` : count.format(progress.done);
}

function timeOf({ state, accepted_at: accepted, started_at: started, finished_at: finished }) {
  if (finished) return `${seconds(Math.max(0, finished - accepted))} · ${clock.format(accepted * 1000)}`;
  if (started && state !== "queued") return seconds(Math.max(0, time.now() - started));
  return clock.format(accepted * 1000);
}
