/* page.js: the page at /: what the server is doing, and what can be done there. Its parts are joined here; each has a file of its own. All of
 * it comes over one WebSocket, by handoff.js, as it happens. What comes from the wire goes into the page as text, never as HTML. */

import { Handoff } from "./handoff.js";
import { Charts } from "./page-charts.js";
import { Detail } from "./page-detail.js";
import { $, count, onceAFrame, setText } from "./page-dom.js";
import { Entry } from "./page-entry.js";
import { Form } from "./page-form.js";
import { LongList } from "./page-list.js";
import { drawRow, makeRow } from "./page-row.js";
import { Store } from "./page-store.js";
import { Tour } from "./page-tour.js";
import { Workers } from "./page-workers.js";

const TICK = 1000; // ms between two looks at the clock: the rows that are seen tell how long they run
const TYPING = 250;

const storage = tabStorage();
const handoff = new Handoff(undefined, { storage, token: Entry.known(storage) });
const draw = onceAFrame(showLists);
const store = new Store(handoff, draw);
const detail = new Detail(handoff, store);
const running = new LongList($("unfinished"), makeRow, drawRow);
const history = new LongList($("history"), makeRow, drawRow, () => store.more());

/** The storage of this tab; null where the browser denies it. */
function tabStorage() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

const STATES = {
  connecting: () => "connecting",
  open: () => "connected",
  waiting: () => "reconnecting",
  closed: ({ code, reason }) => (code === 4401 ? "a token is asked for" : `refused: ${reason || code}`),
};

function showConnection(change) {
  if (change.state === "connecting" && $("connection").dataset.state === "waiting") return; // an attempt is part of the wait
  $("connection").dataset.state = change.state;
  setText($("connection-text"), STATES[change.state](change));
  $("connection").title = change.reason ?? "";
  $("try-now").hidden = change.state === "open" || change.state === "connecting";
}

function showFigures({ figures }) {
  if (!figures) return;
  setText($("accepted"), count.format(figures.accepted));
  setText($("finished"), count.format(figures.finished));
  setText($("waiting"), count.format(figures.unfinished));
}

function showLists() {
  const unfinished = store.unfinished();
  const past = store.history();
  running.set(unfinished);
  history.set(past);
  setText($("unfinished-count"), count.format(unfinished.length));
  setText($("history-count"), store.complete ? count.format(past.length) : `${count.format(past.length)} +`);
  $("unfinished-empty").hidden = unfinished.length > 0;
  $("history-empty").hidden = past.length > 0 || !store.complete;
  $("unfinished").hidden = unfinished.length === 0;
  $("history").hidden = past.length === 0;
  detail.refresh();
}

function applyFilter() {
  store.filter({ state: $("filter-state").value, function: $("filter-function").value, id: $("filter-id").value.trim() });
  draw();
}

function openRow(list, { target }) {
  if (target.closest("button")) detail.open(list.itemAt(target).id);
}

let typing;
$("unfinished").addEventListener("click", (event) => openRow(running, event));
$("history").addEventListener("click", (event) => openRow(history, event));
$("filter-state").addEventListener("change", applyFilter);
$("filter-function").addEventListener("change", applyFilter);
$("filter-id").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(applyFilter, TYPING);
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("try-now").addEventListener("click", () => (handoff.state === "closed" ? handoff.connect() : handoff.wake()));

handoff.on("state", showConnection).on("watch", showFigures);
new Entry(handoff, storage);
new Charts($("charts"), handoff);
new Workers($("workers"), handoff, (id) => detail.open(id));
new Form(handoff);
new Tour(handoff);
handoff.watch();
setInterval(draw, TICK);
