// Shows what a link to a theorem, a definition or an equation leads to, and where a number comes from, while either is
// pointed at, tapped or has the focus. The records of a number are links: Enter goes to them, Escape or Tab back.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const known = new Map();
  for (const template of document.querySelectorAll("template.isce-preview-of"))
    known.set(template.dataset.href, template);
  const records = new Map();
  for (const link of document.querySelectorAll(".isce-page-records a")) records.set(link.textContent, link.href);
  let box = null, owner = null, timer = 0, pressed = false;

  function hide() {
    clearTimeout(timer);
    if (box) box.remove();
    if (owner) owner.removeAttribute("aria-describedby");
    box = owner = null;
    pressed = false;
  }

  function place(link) {
    const at = link.getBoundingClientRect(), size = box.getBoundingClientRect(), gap = 6;
    const left = Math.min(Math.max(8, at.left), document.documentElement.clientWidth - size.width - 8);
    const below = at.bottom + gap + size.height < window.innerHeight || at.top < size.height + gap;
    box.style.left = `${left + window.scrollX}px`;
    box.style.top = `${(below ? at.bottom + gap : at.top - gap - size.height) + window.scrollY}px`;
  }

  async function show(link, content) {
    hide();
    owner = link;
    box = document.createElement("div");
    box.className = "isce-preview";
    box.id = "isce-preview";
    box.append(content());
    const links = box.querySelectorAll("a").length;
    box.setAttribute("role", links ? "dialog" : "tooltip");
    if (links) box.setAttribute("aria-label", `Records behind ${link.textContent}`);
    box.addEventListener("keydown", within);
    box.addEventListener("pointerdown", () => (pressed = true));
    box.addEventListener("click", () => (pressed = false));
    box.addEventListener("focusout", (event) => { if (!staysWith(event)) hide(); });
    box.addEventListener("mouseenter", () => clearTimeout(timer));
    box.addEventListener("mouseleave", hide);
    document.body.append(box);
    link.setAttribute("aria-describedby", box.id);
    place(link);
    const shown = box;
    if (window.MathJax && MathJax.typesetPromise) await MathJax.typesetPromise([shown]);
    if (box === shown) place(link);
  }

  /** Whether the focus goes to the box, or on a touch screen nowhere while a finger is on it. */
  const staysWith = ({ relatedTarget }) => pressed || (box && box.contains(relatedTarget)) || (owner && owner === relatedTarget);

  /** Among the links of a box the Tab key goes round, by way of the number. */
  function within(event) {
    const links = [...box.querySelectorAll("a")], end = event.shiftKey ? links[0] : links.at(-1);
    if (event.key !== "Tab" || document.activeElement !== end) return;
    event.preventDefault();
    owner.focus();
  }

  function attach(link, content) {
    const soon = () => {
      clearTimeout(timer);
      if (owner !== link) timer = setTimeout(() => show(link, content), 150);
    };
    for (const event of ["mouseenter", "focus", "click"]) link.addEventListener(event, soon);
    link.addEventListener("blur", (event) => { if (!staysWith(event)) hide(); });
    link.addEventListener("mouseleave", () => { clearTimeout(timer); timer = setTimeout(hide, 250); });
  }

  /** What a number's title says, its records as links, and of those beyond the first a link to the list of all. */
  function told(text) {
    const line = document.createElement("p");
    line.className = "isce-records";
    for (const piece of text.split(/([^\s,]+\/record\.json|\d+ more$)/)) {
      const href = records.get(piece) ?? (/^\d+ more$/.test(piece) && records.size ? "#page-records" : "");
      if (!href) line.append(piece);
      else line.append(Object.assign(document.createElement("a"), { href, textContent: piece }));
    }
    return line;
  }

  for (const link of document.querySelectorAll("article a.reference")) {
    const template = known.get(link.getAttribute("href"));
    if (template) attach(link, () => template.content.cloneNode(true));
  }
  // Without scripts a number's title is all there is; with them it must not show twice.
  // The numbers of a section are one stop of the Tab key; the arrow keys go from one to the next.
  const groups = new Map();
  for (const number of document.querySelectorAll("article abbr:is(.isce-number, .isce-not-run)")) {
    const text = number.title, section = number.closest("section");
    number.removeAttribute("title");
    if (!groups.has(section)) groups.set(section, []);
    const group = groups.get(section);
    number.tabIndex = group.length ? -1 : 0;
    group.push(number);
    attach(number, () => told(text));
    if (number.matches(".isce-number")) number.setAttribute("role", "button");
    number.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        if (owner !== number) show(number, () => told(text));
        box.querySelector("a")?.focus();
        return;
      }
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = step && group[group.indexOf(number) + step];
      if (!next) return;
      event.preventDefault();
      number.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  document.addEventListener("pointerdown", ({ target }) => { if (box && !box.contains(target) && target !== owner) hide(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (box && box.contains(document.activeElement)) owner.focus();
    hide();
  });
});
