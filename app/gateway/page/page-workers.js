/* page-workers.js: the workers: what each runs now, how full it is, how fast it answers, how much memory it takes. */

import { count, element, megabytes, onceAFrame, seconds, setText, time } from "./page-dom.js";

const MOST_NAMED = 4;

export class Workers {
  #root;
  #cards = new Map();
  #workers = [];
  #open;

  /** `open(id)` shows one of one's own tasks. */
  constructor(root, handoff, open) {
    this.#root = root;
    this.#open = open;
    const draw = onceAFrame(() => this.#draw());
    handoff.on("watch", ({ workers }) => {
      if (!workers) return;
      this.#workers = workers;
      draw();
    });
  }

  #draw() {
    const names = this.#workers.map(({ name, pid }) => `${name} ${pid}`);
    for (const [name, card] of this.#cards) {
      if (names.includes(name)) continue;
      card.remove();
      this.#cards.delete(name);
    }
    this.#workers.forEach((worker, index) => this.#drawOne(names[index], worker));
  }

  #drawOne(name, worker) {
    let card = this.#cards.get(name);
    if (!card) {
      card = makeCard(worker, (id) => this.#open(id));
      this.#cards.set(name, card);
      this.#root.append(card);
    }
    const { used, slots, used_processes: processes, process_slots: most, connected, silent } = worker;
    card.dataset.state = !connected ? "away" : silent ? "silent" : "well";
    setText(card.querySelector(".health"), !connected ? "not connected" : silent ? "does not answer" : "answers");
    card.querySelector(".fill").style.transform = `scaleX(${Math.min(1, (used + processes) / Math.max(1, slots + most))})`;
    setText(card.querySelector(".slots"), `${count.format(used)} of ${count.format(slots)}${most ? ` + ${processes} of ${most}` : ""}`);
    setText(card.querySelector(".lag"), seconds(worker.lag));
    setText(card.querySelector(".memory"), megabytes(worker.memory));
    drawRuns(card.querySelector(".runs"), worker);
  }
}

function makeCard({ name, pid }, open) {
  const card = element("li", "worker");
  const head = element("div", "head");
  head.append(element("h3", "", name), element("span", "pid", `pid ${pid}`), element("span", "health"));
  const bar = element("span", "bar");
  bar.append(element("span", "fill"));
  const facts = element("dl", "facts");
  for (const [label, key] of [["slots", "slots"], ["lag", "lag"], ["memory", "memory"]]) {
    const fact = element("div");
    fact.append(element("dt", "", label), element("dd", key));
    facts.append(fact);
  }
  const runs = element("div", "runs");
  runs.addEventListener("click", ({ target }) => target.dataset.id && open(target.dataset.id));
  card.append(head, bar, facts, runs);
  return card;
}

/** The tasks that have run longest, one's own as buttons; the others are counted. Nodes stay, so that the focus does. */
function drawRuns(root, { tasks, runs }) {
  const total = Object.values(runs).reduce((sum, each) => sum + each, 0);
  const shown = tasks.slice(0, MOST_NAMED);
  const keys = shown.map(({ id, function: name, since }) => `${id ?? ""} ${name} ${since}`);
  for (const node of [...root.children]) if (!keys.includes(node.dataset.key) && node.dataset.key !== "rest") node.remove();
  shown.forEach(({ id, function: name, since }, index) => {
    let node = [...root.children].find((each) => each.dataset.key === keys[index]);
    if (!node) {
      node = element(id ? "button" : "span", "run");
      Object.assign(node.dataset, { key: keys[index], ...(id && { id }) });
      if (id) node.type = "button";
      root.insertBefore(node, root.children[index] ?? null);
    }
    setText(node, `${name} ${seconds(Math.max(0, time.now() - since))}`);
  });
  let rest = root.querySelector("[data-key=rest]");
  if (!rest) {
    rest = element("span", "rest");
    rest.dataset.key = "rest";
    root.append(rest);
  }
  const more = total - shown.length;
  setText(rest, total === 0 ? "idle" : more > 0 ? `and ${count.format(more)} more` : "");
}
