/* page-list.js: a list of any length of which only what is seen is in the page. Rows have one height; Arrow keys, Home and End go along them. */

import { element } from "./page-dom.js";

const BEYOND = 6; // rows drawn above and below what is seen

export class LongList {
  #root;
  #inner = element("div", "rows");
  #draw;
  #items = [];
  #nodes = new Map(); // by index
  #spare = [];
  #height;
  #atEnd;

  /** `make()` gives a row's node, with a button in it; `draw(node, item)` writes an item into it; `atEnd()`: the last rows are near. */
  constructor(root, make, draw, atEnd = () => {}) {
    this.#root = root;
    this.#draw = draw;
    this.#atEnd = atEnd;
    this.make = make;
    this.#inner.setAttribute("role", "list");
    this.#inner.setAttribute("aria-label", root.dataset.label);
    root.append(this.#inner);
    root.addEventListener("scroll", () => this.#show(), { passive: true });
    root.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#resized()).observe(root);
    this.#resized();
  }

  set(items) {
    this.#items = items;
    this.#show();
  }

  /** The item of the row that this node is in. */
  itemAt(node) {
    return this.#items[Number(node.closest("[data-index]").dataset.index)];
  }

  #resized() {
    this.#height = parseFloat(getComputedStyle(this.#root).getPropertyValue("--row")) || 52;
    for (const [index, node] of this.#nodes) node.style.transform = `translateY(${index * this.#height}px)`;
    this.#show();
  }

  #show() {
    const { scrollTop, clientHeight } = this.#root;
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - BEYOND);
    const last = Math.min(this.#items.length, Math.ceil((scrollTop + clientHeight) / this.#height) + BEYOND);
    this.#inner.style.height = `${this.#items.length * this.#height}px`;
    for (const [index, node] of this.#nodes) if (index < first || index >= last) this.#release(index, node);
    for (let index = first; index < last; index += 1) this.#drawAt(index);
    if (last >= this.#items.length) this.#atEnd();
  }

  #release(index, node) {
    this.#nodes.delete(index);
    node.hidden = true;
    this.#spare.push(node);
  }

  #drawAt(index) {
    let node = this.#nodes.get(index);
    if (!node) {
      node = this.#spare.pop() ?? this.#made();
      node.hidden = false;
      node.dataset.index = index;
      node.setAttribute("aria-posinset", index + 1);
      node.style.transform = `translateY(${index * this.#height}px)`;
      this.#nodes.set(index, node);
    }
    if (node.ariaSetSize !== String(this.#items.length)) node.setAttribute("aria-setsize", this.#items.length);
    this.#draw(node, this.#items[index]);
  }

  #made() {
    const node = this.make();
    node.setAttribute("role", "listitem");
    this.#inner.append(node);
    return node;
  }

  #key(event) {
    const at = event.target.closest("[data-index]");
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity }[event.key];
    if (!at || step === undefined) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(this.#items.length - 1, Number(at.dataset.index) + step));
    const top = index * this.#height;
    const { scrollTop, clientHeight } = this.#root;
    if (top < scrollTop) this.#root.scrollTop = top;
    else if (top + this.#height > scrollTop + clientHeight) this.#root.scrollTop = top + this.#height - clientHeight;
    this.#show();
    this.#nodes.get(index)?.querySelector("button").focus({ preventScroll: true });
  }
}
