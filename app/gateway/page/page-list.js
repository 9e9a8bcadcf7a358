/* page-list.js: a list of any length of which only what is seen is in the page. Rows have one height. Tab goes into the list and out of it;
 * Arrow keys, Home and End go along it. Rows stand in the page in their order, and the focus stays with its item where others come before it. */

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
  #at = 0; // the row that Tab goes to
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
    root.addEventListener("focusin", ({ target }) => this.#focused(target));
    new ResizeObserver(() => this.#resized()).observe(root);
    this.#resized();
  }

  /** Items have an `id`. */
  set(items) {
    const held = this.#inner.contains(document.activeElement) ? this.#items[this.#at] : null;
    this.#items = items;
    this.#inner.style.height = `${items.length * this.#height}px`;
    const index = held ? items.findIndex(({ id }) => id === held.id) : -1;
    const moved = index < 0 ? 0 : index - this.#at;
    this.#at = Math.max(0, Math.min(items.length - 1, this.#at + moved));
    if (moved) this.#root.scrollTop += moved * this.#height;
    this.#show();
    if (moved) this.#focus(index);
  }

  /** The item of the row that this node is in. */
  itemAt(node) {
    return this.#items[Number(node.closest("[data-index]").dataset.index)];
  }

  #resized() {
    this.#height = parseFloat(getComputedStyle(this.#root).getPropertyValue("--row")) || 52;
    this.#inner.style.height = `${this.#items.length * this.#height}px`;
    for (const [index, node] of this.#nodes) node.style.transform = `translateY(${index * this.#height}px)`;
    this.#show();
  }

  #show() {
    const { scrollTop, clientHeight } = this.#root;
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - BEYOND);
    const last = Math.min(this.#items.length, Math.ceil((scrollTop + clientHeight) / this.#height) + BEYOND);
    for (const [index, node] of this.#nodes) if (index < first || index >= last) this.#release(index, node);
    const tab = this.#at >= first && this.#at < last ? this.#at : Math.min(last - 1, Math.ceil(scrollTop / this.#height));
    for (let index = first; index < last; index += 1) this.#drawAt(index, last, tab);
    if (last >= this.#items.length) this.#atEnd();
  }

  #release(index, node) {
    this.#nodes.delete(index);
    node.hidden = true;
    this.#spare.push(node);
  }

  #drawAt(index, last, tab) {
    let node = this.#nodes.get(index);
    if (!node) {
      node = this.#spare.pop() ?? this.#made();
      this.#inner.insertBefore(node, this.#nextTo(index, last));
      node.hidden = false;
      node.dataset.index = index;
      node.setAttribute("aria-posinset", index + 1);
      node.style.transform = `translateY(${index * this.#height}px)`;
      this.#nodes.set(index, node);
    }
    if (node.ariaSetSize !== String(this.#items.length)) node.setAttribute("aria-setsize", this.#items.length);
    node.querySelector("button").tabIndex = index === tab ? 0 : -1;
    this.#draw(node, this.#items[index]);
  }

  #nextTo(index, last) {
    for (let next = index + 1; next < last; next += 1) if (this.#nodes.has(next)) return this.#nodes.get(next);
    return null;
  }

  #made() {
    const node = this.make();
    node.setAttribute("role", "listitem");
    return node;
  }

  #focused(target) {
    const row = target.closest("[data-index]");
    if (!row) return;
    this.#at = Number(row.dataset.index);
    this.#show();
  }

  #focus(index) {
    this.#nodes.get(index)?.querySelector("button").focus({ preventScroll: true });
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
    this.#focus(index);
  }
}
