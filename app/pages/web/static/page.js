// The ways in: choosing, taking, dropping, pasting, samples. Without this script the form works by itself.

import { Entry } from "./gallery.js";
import { ask, fetchPage, getKey, isKey, setKey } from "./service.js";

const MOST_AT_ONCE = 4;
const MOST_PICTURES = 60;
const SECONDS_BETWEEN_LOOKS = 2;
const find = (selector) => document.querySelector(selector);
const status = find("#status");
const access = find("#access");
const field = find("#key");
const home = document.baseURI;
const queue = [];
let locked = [];
const done = new Set(); // of those that were sent together
let running = 0;
let note = "";

function say(text) {
  status.textContent = text;
}

function add(files) {
  const pictures = [...files];
  if (!pictures.length) return;
  begin();
  if (pictures.length > MOST_PICTURES) {
    note = `. Only the first ${MOST_PICTURES} were sent; python -m app.classify reads whole folders.`;
    pictures.length = MOST_PICTURES;
  }
  const alone = pictures.length === 1; // else the tiles are what to look at
  const entries = pictures.map((file) => new Entry(file, { alone, onWait: report, onDone: finish, onRetry: retry }));
  entries[0].show();
  if (entries.length > 1) find("#results").scrollIntoView();
  start(...entries);
}

/** Counts from one again, unless others are still on their way. */
function begin() {
  if (running) return;
  done.clear();
  note = "";
}

function retry(entry) {
  begin();
  done.delete(entry);
  start(entry);
}

function start(...entries) {
  queue.push(...entries);
  while (running < MOST_AT_ONCE && queue.length) {
    running += 1;
    queue.shift().send();
  }
}

/** Says what became of a picture, or what it waits for, and how many are done. */
function report(entry) {
  const left = running + queue.length;
  const total = done.size + left;
  const count = total > 1 ? `${done.size} of ${total} done. ` : "";
  say(`${count}${entry.file.name}: ${entry.summary}${left ? "" : note}`);
}

function finish(entry) {
  running -= 1;
  start();
  if (entry.locked) unlock(entry);
  else {
    done.add(entry);
    report(entry);
  }
  if (entry.alone && entry.article.isConnected) entry.article.scrollIntoView({ block: "nearest" });
  if (entry.version && entry.version !== find("#model").dataset.version) describe();
}

/** Another version serves than the page was made with, or the first one, with which samples come. */
async function describe() {
  try {
    const page = await fetchPage(home);
    find("#model").replaceWith(page.querySelector("#model"));
    if (!find(".samples")) find("#upload").after(...page.querySelectorAll(".samples"));
    if (!find(".sources")) find("#results").after(...page.querySelectorAll(".sources"));
  } catch {
    // The next answer tries again.
  }
}

/** No model served when the page was made: it is shown as soon as one does. */
async function awaitModel() {
  while (!find("#model").dataset.version) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS_BETWEEN_LOOKS));
    await describe();
  }
}

function unlock(entry) {
  locked.push(entry);
  if (!access.hidden) return;
  access.hidden = false;
  object(getKey() ? "The key is wrong." : "");
}

/** Asks for another key, and says what is wrong with the last. */
function object(text) {
  find("#objection").textContent = text;
  field.setAttribute("aria-invalid", String(text !== ""));
  field.focus();
}

access.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!isKey(field.value)) {
    object("A key has only ASCII letters, digits and punctuation.");
    return;
  }
  setKey(field.value);
  access.hidden = true;
  field.value = "";
  find("#shown > article").focus(); // the form has gone, and the focus with it
  start(...locked);
  locked = [];
});

for (const input of [find("#file"), find("#camera")]) {
  input.multiple = input.id === "file";
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}

document.addEventListener("click", async (event) => {
  const sample = event.target.closest("[data-sample]")?.dataset.sample;
  if (!sample) return;
  try {
    const response = await ask(sample);
    if (!response.ok) throw new Error(response.statusText);
    const blob = await response.blob();
    add([new File([blob], sample.split("/").at(-1), { type: blob.type })]);
  } catch {
    say("The sample can’t be fetched: the service can’t be reached.");
  }
});

document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  if (files.length) add(files);
  else if (!event.target.matches?.("input")) say("There is no picture in the clipboard.");
});

const body = document.body;
let depth = 0; // dragenter and dragleave come for every element that is crossed
addEventListener("dragenter", () => body.classList.toggle("dragging", (depth += 1) > 0));
addEventListener("dragleave", () => body.classList.toggle("dragging", (depth -= 1) > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  body.classList.remove("dragging");
  const files = event.dataTransfer?.files ?? [];
  if (files.length) add(files);
  else say("That is not a file. Save the picture first, then drop it here.");
});

if (!find("#model").dataset.version) awaitModel();
