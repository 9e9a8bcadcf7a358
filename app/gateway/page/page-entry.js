/* page-entry.js: asks for a token where the gateway does. It is kept in the storage of this tab alone, and goes nowhere but into the first
 * message of a connection: not into a URL, a cookie or the page. */

import { $, setText } from "./page-dom.js";

const UNAUTHORIZED = 4401;
const KEY = "handoff-token";

export class Entry {
  #handoff;
  #storage;

  constructor(handoff, storage) {
    this.#handoff = handoff;
    this.#storage = storage;
    $("entry-form").addEventListener("submit", (event) => this.#enter(event));
    handoff.on("state", (change) => this.#show(change));
    handoff.on("admitted", ({ operator }) => { document.body.dataset.operator = operator; });
  }

  /** What was entered in this tab before. */
  static known(storage) {
    return storage?.getItem(KEY) ?? "";
  }

  #show({ state, code, reason }) {
    if (state === "open") $("entry").hidden = true;
    if (state !== "closed" || code !== UNAUTHORIZED) return;
    setText($("entry-note"), Entry.known(this.#storage) ? reason : "");
    this.#storage?.removeItem(KEY);
    $("entry").hidden = false;
    $("token").focus();
  }

  #enter(event) {
    event.preventDefault();
    const token = $("token").value.trim();
    $("token").value = "";
    try {
      this.#storage?.setItem(KEY, token);
    } catch {
      setText($("entry-note"), ""); // no room, or forbidden: it holds until the page is left
    }
    this.#handoff.token = token;
    this.#handoff.connect();
  }
}
