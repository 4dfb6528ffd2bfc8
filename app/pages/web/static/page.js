// Takes pictures by choosing, camera, dropping, pasting and samples. The form also works without this script.

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
const done = new Set(); // of the pictures that were sent together
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
  const alone = pictures.length === 1; // otherwise people look at the gallery
  const entries = pictures.map((file) => new Entry(file, { alone, onWait: report, onDone: finish, onRetry: retry }));
  entries[0].show();
  if (entries.length > 1) find("#results").scrollIntoView();
  start(...entries);
}

/** Counts from one again, unless pictures are still in progress. */
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

/** Shows the result of a picture, or why it waits, and how many are done. */
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

/** Updates the page when another version serves; the first one also brings the samples. */
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

/** Shows the model as soon as one serves, if none did when the page was made. */
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

/** Asks for another key, and shows why the last one was rejected. */
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
  find("#shown > article").focus(); // the form that had the focus is hidden
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
let depth = 0; // dragenter and dragleave occur for every element on the way
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
