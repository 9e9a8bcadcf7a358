/* page-tour.js: "Send to 1,000 users": what all of this is for, in one button. */

import { $, count, seconds, setText } from "./page-dom.js";

const USERS = 1000;
const NOTES = {
  submitted: "Handing it over …",
  accepted: "Accepted: it waits for a worker.",
  started: "A worker is sending. Reload, lose the network: it goes on.",
  retrying: "It did not go through, and will be tried again.",
};

export class Tour {
  #handoff;
  #task = null;

  constructor(handoff) {
    this.#handoff = handoff;
    $("bulk-send").addEventListener("click", () => this.#send());
    $("bulk-cancel").addEventListener("click", () => this.#task?.cancel());
    const left = [...handoff.tasks.values()].findLast((task) => task.function === "send_mails");
    if (left) this.#follow(left);
  }

  #send() {
    if ($("bulk-send").getAttribute("aria-disabled") === "true") return;
    const to = Array.from({ length: USERS }, (_, index) => `user${index + 1}@example.org`);
    const contents = "Good news, everyone: the slow things no longer keep you waiting.";
    const task = this.#handoff.submit("send_mails", { from: "news@example.org", to, subject: "Good news", contents });
    this.#follow(Object.assign(task, { done: 0, total: USERS }));
  }

  #follow(task) {
    this.#task = task;
    task.on("event", () => this.#show(task)).on("end", () => this.#show(task));
    this.#show(task);
  }

  #show(task) {
    const total = task.total ?? USERS;
    const done = (task.state === "succeeded" ? total : task.done) ?? 0;
    $("bulk").dataset.state = task.finished ? task.state : "running";
    Object.assign($("bulk-progress"), { max: total, value: done });
    setText($("bulk-done"), count.format(done));
    setText($("bulk-note"), note(task, done));
    $("bulk-send").setAttribute("aria-disabled", String(!task.finished)); // not disabled: it would lose the focus
    if (task.finished && document.activeElement === $("bulk-cancel")) $("bulk-send").focus();
    $("bulk-cancel").hidden = task.finished;
    document.title = task.finished ? "Handoff" : `${Math.floor((100 * done) / total)} % · Handoff`;
  }
}

function note(task, done) {
  if (task.state === "succeeded") return `All sent in ${seconds((Date.now() - task.created) / 1000)}.`;
  if (task.finished) return `${task.state.replace("_", " ")} after ${count.format(done)}: ${task.error.message}`;
  return NOTES[task.state];
}
