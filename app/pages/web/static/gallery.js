// An entry for each picture: an article with its result and, with two or more pictures, a button in the gallery.

import { classify, getKey } from "./service.js";

const results = document.querySelector("#results");
const gallery = document.querySelector("#gallery");
const shown = document.querySelector("#shown");
const make = (id) => document.querySelector(`template#${id}`).content.firstElementChild.cloneNode(true);

/** Quotes a file name for curl in a shell. */
function quote(name) {
  const field = `file=@${name}`;
  if (/^[\w.+@=/-]+$/.test(field)) return field;
  const escaped = name.replace(/[\\"]/g, "\\$&").replace(/'/g, "'\\''");
  return `'file=@"${escaped}"'`;
}

export class Entry {
  constructor(file, { alone, onWait, onDone, onRetry }) {
    this.file = file;
    this.alone = alone; // added without others
    this.onWait = onWait;
    this.onDone = onDone;
    this.article = make("entry");
    this.waiting = this.article.querySelector(".waiting");
    this.retry = this.article.querySelector(".retry");
    this.retry.querySelector("button").addEventListener("click", () => onRetry(this));
    this.article.setAttribute("aria-label", file.name); // screen readers say it on focus
    const picture = this.article.querySelector(".original img");
    picture.src = URL.createObjectURL(file);
    picture.alt = `Your picture, ${file.name}`;
    picture.addEventListener("error", () => picture.remove(), { once: true }); // the caption with its name stays
    this.article.querySelector(".original figcaption").textContent = file.name;
    this.addButton(picture.src);
  }

  addButton(source) {
    const item = document.createElement("li");
    this.button = document.createElement("button");
    this.button.type = "button";
    const picture = new Image();
    picture.alt = "";
    picture.src = source;
    picture.addEventListener("error", () => picture.remove(), { once: true });
    const thumbnail = document.createElement("span");
    thumbnail.className = "thumbnail";
    thumbnail.append(picture);
    this.caption = document.createElement("span");
    this.caption.className = "caption";
    this.button.append(thumbnail, this.caption);
    this.label();
    this.button.addEventListener("click", () => {
      this.show();
      this.article.scrollIntoView({ block: "nearest" }); // on phones it is below the gallery
    });
    item.append(this.button);
    gallery.append(item);
    gallery.hidden = gallery.children.length < 2;
    results.hidden = false;
    document.body.classList.add("used");
  }

  show() {
    for (const button of gallery.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button === this.button));
    }
    shown.replaceChildren(this.article);
  }

  /** Clears the last result of this picture and sends it to the service. */
  async send() {
    for (const part of this.article.querySelectorAll(".seen, .programs")) part.remove();
    this.article.querySelector(".answer").replaceChildren();
    if (this.retry.contains(document.activeElement)) this.article.focus({ preventScroll: true }); // the button is about to be hidden
    this.retry.hidden = true;
    this.waiting.hidden = false;
    this.article.setAttribute("aria-busy", "true");
    this.label();
    const { action, dataset } = document.querySelector("#upload");
    // Not sent, because a server that rejects a body before it has read it may close the connection before its answer.
    const fits = this.file.size < Number(dataset.maxBytes);
    const tell = (text, summary = this.summary) => {
      this.waiting.textContent = text;
      if (summary === this.summary) return;
      this.label(summary);
      this.onWait(this); // once, not every second or at every try
    };
    const answer = fits ? await classify(action, this.file, tell) : { kind: "oversized" };
    this.article.removeAttribute("aria-busy");
    this.waiting.hidden = true;
    this.locked = answer.kind === "locked";
    if (answer.kind === "result") this.fill(answer);
    else this.refuse(answer);
    this.onDone(this);
  }

  fill({ article, milliseconds }) {
    article.querySelector(".round-trip").textContent = `; ${Math.round(milliseconds)} ms including the network`;
    article.querySelector(".upload").textContent = quote(this.file.name);
    if (getKey()) article.querySelector(".key").textContent = '-H "Authorization: Bearer $KEY" ';
    this.version = article.dataset.version;
    const mark = article.querySelector(".hint") ? ", unfamiliar" : "";
    this.label(`${article.querySelector(".label").textContent}, ${article.querySelector(".sure").textContent}${mark}`);
    this.article.querySelector(".pictures").append(article.querySelector(".seen"));
    this.article.querySelector(".answer").replaceWith(article.querySelector(".answer"));
    this.article.append(article.querySelector(".programs"));
  }

  refuse({ kind, article, said }) {
    const problem = article ?? make(kind);
    if (said) problem.querySelector(".said").textContent = said;
    this.article.querySelector(".answer").replaceChildren(problem);
    this.retry.hidden = ["refused", "oversized", "unreadable", "locked"].includes(kind);
    this.label(problem.querySelector("h2").textContent);
  }

  /** Shows the file and its result on the button. */
  label(summary = "…") {
    this.summary = summary;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = this.file.name;
    this.caption.replaceChildren(name, summary);
    this.button.setAttribute("aria-label", `${this.file.name}: ${summary}`);
  }
}
