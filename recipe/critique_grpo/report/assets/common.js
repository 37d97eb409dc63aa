"use strict";
// Elements of a page. Texts of models become text nodes only, so nothing in them is ever run.
function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const verdict = (right) => make("span", right ? "correct" : "wrong", { class: right ? "good" : "bad" });

// Data by name: in the page, or, where there is much of it, in files of a folder beside the page.
const known = (name) => JSON.parse(document.getElementById(name).textContent);
const page = known("page");
const pieces = new Map(); // name -> promise of its value
const arrivals = new Map(); // name -> what to call with its value

function receive(name, value) { // called by a data file
  arrivals.get(name)(value);
}

function load(name) {
  if (!pieces.has(name)) {
    pieces.set(name, document.getElementById(name) ? Promise.resolve(known(name)) : loadFile(name));
  }
  return pieces.get(name);
}

function loadFile(name) {
  if (!page.folder) return Promise.reject(new Error(`This page has no ${name.replace("-", " ")}.`));
  return new Promise((resolve, reject) => {
    const failed = () => {
      pieces.delete(name);
      reject(new Error(`${name}.js cannot be read: keep the folder ${page.folder} beside this page.`));
    };
    let arrived = false;
    arrivals.set(name, (value) => { arrived = true; resolve(value); });
    const script = make("script", "", { src: `${encodeURIComponent(page.folder)}/${encodeURIComponent(name)}.js` });
    script.onerror = failed;
    script.onload = () => { if (!arrived) failed(); };
    document.head.append(script);
  });
}

// Fifty of a list at a time, with buttons to go on and back.
const PAGE = 50;
class Pages {
  constructor(what, total, show) {
    Object.assign(this, { what, total, show, list: [], start: 0 });
    document.getElementById("before").addEventListener("click", () => this.turn(this.start - PAGE));
    document.getElementById("after").addEventListener("click", () => this.turn(this.start + PAGE));
  }
  set(list) {
    this.list = list;
    this.turn(0);
  }
  turn(start) {
    if (start > 0 && start >= this.list.length) return;
    this.start = Math.max(0, start);
    const end = Math.min(this.start + PAGE, this.list.length);
    document.getElementById("found").textContent =
      `${this.list.length} of ${this.total} ${this.what}${end ? `, ${this.start + 1} to ${end}` : ""}`;
    this.show(this.list.slice(this.start, end));
  }
}
