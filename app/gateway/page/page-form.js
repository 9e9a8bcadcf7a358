/* page-form.js: the form for any task, made from the catalogue: a field for each parameter, by its type, with its default and the docstring. */

import { HandoffError } from "./handoff.js";
import { $, asJson, element, markCode } from "./page-dom.js";

const EXAMPLES = {
  from: "news@example.org", to: "you@example.org", subject: "Hello", contents: "Good news, everyone.",
  seconds: 5, start: 20, below: 1000000,
};
const FIRST = "countdown";
const LONG = new Set(["contents", "text", "body", "message", "html"]);

export class Form {
  #handoff;
  #catalogue = [];
  #fields = [];
  #asking = false;

  constructor(handoff) {
    this.#handoff = handoff;
    $("function").addEventListener("change", () => this.#showFunction());
    $("form").addEventListener("submit", (event) => this.#submit(event));
    $("form").addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "Enter") $("form").requestSubmit();
    });
    handoff.on("state", ({ state }) => state === "open" && this.#load());
  }

  get names() {
    return this.#catalogue.map(({ name }) => name);
  }

  async #load() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      this.#catalogue = (await this.#handoff.describe()).functions;
      this.#showNames();
    } catch (error) {
      if (!(error instanceof HandoffError)) throw error;
      this.#say(error.message, true);
    } finally {
      this.#asking = false;
    }
  }

  #showNames() {
    const chosen = $("function").value;
    $("function").replaceChildren(...this.names.map((name) => option(name)));
    $("filter-function").replaceChildren(option("", "every task"), ...this.names.map((name) => option(name)));
    if (this.names.includes(chosen)) $("function").value = chosen;
    else if (this.names.includes(FIRST)) $("function").value = FIRST;
    if ($("function").value !== chosen) this.#showFunction();
  }

  #showFunction() {
    const chosen = this.#catalogue.find(({ name }) => name === $("function").value);
    const { run_in: where, retryable } = chosen?.options ?? {};
    const how = [where && where !== "greenlet" && `runs in a ${where}`, retryable && "is tried again where its process dies"];
    $("function-doc").replaceChildren(...markCode(chosen?.doc ?? ""));
    $("function-how").textContent = how.filter(Boolean).join(", ");
    this.#fields = (chosen?.params ?? []).map((param) => new Field(param));
    $("fields").replaceChildren(...this.#fields.map(({ node }) => node));
    this.#say("");
  }

  #submit(event) {
    event.preventDefault();
    const problems = this.#fields.filter((field) => !field.check());
    if (problems.length) {
      problems[0].input.focus();
      return;
    }
    try {
      const delay = Number($("delay").value);
      const task = this.#handoff.submit($("function").value, readArguments(this.#fields), delay ? { delay } : {});
      this.#follow(task);
    } catch (error) {
      if (!(error instanceof HandoffError)) throw error;
      this.#say(error.message, true);
    }
  }

  #follow(task) {
    this.#say(this.#handoff.state === "open" ? `Handing over ${task.function} …` : "It goes out as soon as the connection is back.");
    task.on("accepted", () => this.#say(`${task.function} is accepted.`));
    task.on("refused", (error) => this.#say(`${error.code}: ${error.message}`, true));
    task.on("end", () => task.error && this.#say(`${task.function}: ${task.error.code}: ${task.error.message}`, true));
  }

  #say(text, bad = false) {
    $("form-note").textContent = text;
    $("form-note").classList.toggle("problem", bad);
  }
}

function option(value, text = value) {
  return Object.assign(element("option", "", text), { value });
}

/** By name; what is left empty takes its default. `*rest` makes an array by position, `**rest` adds names. */
function readArguments(fields) {
  const named = fields.filter(({ stars }) => stars === 0);
  const positional = fields.find(({ stars }) => stars === 1);
  const rest = positional?.value();
  if (rest?.length) return [...named.map((field) => field.value()), ...rest];
  const entries = named.filter((field) => field.given).map((field) => [field.param.name, field.value()]);
  return { ...Object.fromEntries(entries), ...fields.find(({ stars }) => stars === 2)?.value() };
}

/** One parameter: a label, the input that suits its type, and what is wrong with what was typed. */
class Field {
  constructor(param) {
    this.param = param;
    this.stars = /^\**/.exec(param.name)[0].length;
    this.type = this.stars ? "json" : inputType(param.type);
    this.input = this.#makeInput();
    this.error = element("p", "problem");
    const id = `field-${param.name.replaceAll("*", "x")}`;
    const label = Object.assign(element("label"), { htmlFor: id });
    label.append(element("span", "", param.name), element("span", "type", describeType(param, this.type)));
    Object.assign(this.error, { id: `${id}-error` });
    this.input.id = id;
    this.input.setAttribute("aria-describedby", this.error.id);
    if (param.required) this.input.setAttribute("aria-required", "true");
    this.node = element("div", this.type === "check" ? "field check" : "field");
    this.node.append(label, this.input, this.error);
  }

  #makeInput() {
    const { param, type } = this;
    const long = type === "json" || type === "lines" || LONG.has(param.name);
    const input = element(long ? "textarea" : "input");
    if (long) input.rows = type === "text" ? 3 : 2;
    else input.type = type === "check" ? "checkbox" : "text";
    if (type === "number") input.inputMode = "decimal";
    Object.assign(input, { autocomplete: "off", spellcheck: type === "text" && long });
    const standard = param.default;
    if (type === "check") input.checked = standard === true;
    else if (standard !== undefined) input.placeholder = type === "text" ? String(standard ?? "") : asJson(standard, 60);
    if (param.required || this.stars === 2) input.value = example(param, type, this.stars);
    return input;
  }

  /** Whether something was said here, so that the default does not count. */
  get given() {
    if (this.type === "check") return this.param.required || this.input.checked !== (this.param.default === true);
    return this.input.value !== "" || (this.param.required && this.type === "text");
  }

  check() {
    let problem = "";
    try {
      if (!this.given && this.param.required) problem = "is wanted";
      else if (this.given) this.value();
    } catch (error) {
      problem = error.message;
    }
    this.error.textContent = problem && `${this.param.name}: ${problem}`;
    this.input.toggleAttribute("aria-invalid", problem !== "");
    if (problem) this.input.setAttribute("aria-invalid", "true");
    return !problem;
  }

  value() {
    const text = this.input.value;
    if (this.type === "check") return this.input.checked;
    if (this.type === "text") return text;
    if (this.type === "lines") return text.split("\n").map((line) => line.trim()).filter(Boolean);
    if (this.type === "number") return number(text);
    const value = text.trim() === "" ? (this.stars === 1 ? [] : {}) : JSON.parse(text, keepDigits);
    if (this.stars === 1 && !Array.isArray(value)) throw new SyntaxError("an array is needed");
    if (this.stars === 2 && (value === null || typeof value !== "object" || Array.isArray(value))) throw new SyntaxError("an object is needed");
    return value;
  }
}

function inputType(type) {
  if (/^(int|float)( \| None)?$/.test(type)) return "number";
  if (/^str( \| None)?$/.test(type)) return "text";
  if (type === "bool") return "check";
  return type === "list[str]" ? "lines" : "json";
}

function describeType({ type, required, default: standard }, input) {
  const how = input === "lines" ? `${type}, one a line` : input === "json" ? `${type}, as JSON` : type;
  return required ? how : standard === undefined ? `${how}, optional` : `${how}, default ${asJson(standard, 40)}`;
}

function example({ name, type }, input, stars) {
  if (stars === 2) return '{"hello": "world"}';
  const known = EXAMPLES[name];
  if (known !== undefined) return String(known);
  return input === "number" ? "1" : input === "json" ? (type.startsWith("list") ? "[]" : "null") : "";
}

function number(text) {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new SyntaxError("a number is needed");
  return keepDigits("", value, { source: text.trim() });
}

/** Refuse a whole number that JavaScript would round (where the browser tells how it was written). */
function keepDigits(key, value, written) {
  const rounded = typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(written?.source ?? "");
  if (rounded) throw new SyntaxError(`${written.source} has more digits than JavaScript keeps`);
  return value;
}
