// A figure of attack records in which the reader chooses attack, threat model and objectives. It draws what the JSON
// inside its box says (isce.attack_report.chooser) and computes nothing. Without this script the box stays hidden.
"use strict";

(() => {
  // The markers of the other figures, by their letters there; each about 12 pixels wide, around (0, 0).
  const SHAPES = {
    o: "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0Z",
    s: "M-5-5H5V5H-5Z",
    "^": "M0-6L6 5H-6Z",
    D: "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
    v: "M0 6L6-5H-6Z",
    P: "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    X: "M-6-3L-3-6L0-3L3-6L6-3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0Z",
    "<": "M-6 0L5-6V6Z",
    ">": "M6 0L-5-6V6Z",
  };
  const TICKS = [0, 25, 50, 75, 100];
  const CONTROLS = `
    <form class="isce-chooser-controls" autocomplete="off">
      <label>Attack <select name="attack"></select></label>
      <label>Threat model and eps <select name="threat"></select></label>
      <fieldset><legend>Objectives</legend></fieldset>
      <label class="isce-chooser-sort"><input type="checkbox" name="sort"> highest first</label>
    </form>
    <ul class="isce-chooser-rows" aria-label="Accuracy in per cent"></ul>
    <p class="isce-chooser-readout" aria-live="polite"></p>`;

  /** An element with attributes and content; names of SVG elements get their namespace. */
  function make(name, attributes = {}, ...content) {
    const svg = ["svg", "path", "rect", "line", "text"].includes(name);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...content);
    return element;
  }

  /** Options, under headings where `heading` gives them one. */
  function fill(select, entries, heading = () => "") {
    const groups = new Map();
    for (const entry of entries) {
      const name = heading(entry);
      if (!groups.has(name)) groups.set(name, name ? make("optgroup", { label: name }) : select);
      groups.get(name).append(make("option", {}, entry.name ?? entry.threat));
    }
    select.append(...[...groups.values()].filter((group) => group !== select));
  }

  /** The figures of a cell: none where it was not run (an empty list) or not evaluated (a text that says why). */
  const numbers = (figures) => (typeof figures === "string" ? [] : figures);
  const height = (figures) => numbers(figures)[0] ?? -1;

  const lines = () => TICKS.map((tick) => make("line", { class: "isce-chooser-grid", x1: `${tick}%`, x2: `${tick}%`, y2: "100%" }));

  /** One objective: label, marks on the scale, figures in words. `show` moves the marks. */
  function row({ label, clean, color, marker }) {
    const bar = make("rect", { class: "isce-chooser-interval", y: "50%", height: 4 });
    const stem = make("rect", { class: "isce-chooser-stem", y: "50%", height: 2, x: 0 });
    const mark = make("svg", { y: "50%", overflow: "visible" }, make("path", { d: SHAPES[marker], class: "isce-chooser-mark" }));
    const before = make("rect", { class: "isce-chooser-clean", x: `${clean}%`, width: 1.5, y: "20%", height: "60%" });
    const value = make("span", { class: "isce-chooser-value" });
    const track = make("svg", { class: "isce-chooser-track", "aria-hidden": "true" }, ...lines(), before, stem, bar, mark);
    const item = make("li", {}, make("span", {}, label), track, value);
    // Black stands for what text is written in: white in the dark.
    item.style.setProperty("--isce-colour", color === "#000000" ? "currentcolor" : color);
    const show = (figures) => {
      const [mean, low, high, half] = numbers(figures);
      for (const part of [stem, bar, mark]) part.toggleAttribute("hidden", mean === undefined);
      if (mean === undefined) {
        value.replaceChildren(typeof figures === "string" ? figures : "not run");
        return;
      }
      stem.setAttribute("width", `${mean}%`);
      bar.setAttribute("x", `${low}%`);
      bar.setAttribute("width", `${high - low}%`);
      mark.setAttribute("x", `${mean}%`);
      const spread = half === undefined ? "" : ` ±${half.toFixed(1)}`;
      value.replaceChildren(make("b", {}, mean.toFixed(1)), ` [${low.toFixed(1)}, ${high.toFixed(1)}]${spread}`);
    };
    return { item, show };
  }

  function axis() {
    const texts = TICKS.map((tick) => make("text", { x: `${tick}%`, y: "1em", "text-anchor": "middle" }, `${tick}`));
    return make("li", { class: "isce-chooser-axis", "aria-hidden": "true" }, make("span"), make("svg", {}, ...texts), make("span", {}, "per cent"));
  }

  function start(box) {
    const { start: first, kinds, objectives, attacks } = JSON.parse(box.querySelector("script").textContent);
    const app = make("div", { class: "isce-chooser-app" });
    app.innerHTML = CONTROLS;
    const form = app.querySelector("form");
    const [list, readout] = [app.querySelector("ul"), app.querySelector("p")];
    const { attack, threat, sort } = form.elements;
    fill(attack, attacks, ({ at }) => kinds[at[0].kind][0]);
    const [rows, scale] = [objectives.map(row), axis()];
    const ticks = objectives.map(({ label }) => {
      const tick = make("input", { type: "checkbox", name: "objective", checked: "" });
      form.querySelector("fieldset").append(make("label", {}, tick, ` ${label}`));
      return tick;
    });

    const chosen = () => attacks.find(({ name }) => name === attack.value);
    const offerThreats = (wanted) => {
      threat.replaceChildren();
      fill(threat, chosen().at);
      if (chosen().at.some((found) => found.threat === wanted)) threat.value = wanted;
    };
    const refresh = () => {
      const found = chosen().at.find((one) => one.threat === threat.value);
      const [, note] = kinds[found.kind];
      let order = objectives.map((_, number) => number).filter((number) => ticks[number].checked);
      if (sort.checked) order.sort((one, two) => height(found.results[two]) - height(found.results[one]));
      rows.forEach(({ show }, number) => show(found.results[number]));
      const items = [...order.map((number) => rows[number].item), scale];
      // Only where it changes: an element that is put in anew doesn't move, it jumps.
      const same = items.length === list.children.length && items.every((item, place) => item === list.children[place]);
      if (!same) list.replaceChildren(...items);
      readout.textContent = order.length ? `${attack.value}, ${threat.value}: ${found.on}. ${note}` : "No objective is chosen.";
    };
    form.addEventListener("input", (event) => {
      if (event.target === attack) offerThreats(threat.value);
      refresh();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    offerThreats(first);
    refresh();
    box.prepend(app);
    box.classList.add("isce-chooser-live");
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".isce-chooser").forEach(start));
})();
