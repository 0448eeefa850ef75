// Shows what a link to a theorem, a definition or an equation leads to, and where a number comes from, while either is
// pointed at, tapped or has the focus.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const known = new Map();
  for (const template of document.querySelectorAll("template.isce-preview-of"))
    known.set(template.dataset.href, template);
  let box = null, owner = null, timer = 0;

  function hide() {
    clearTimeout(timer);
    if (box) box.remove();
    if (owner) owner.removeAttribute("aria-describedby");
    box = owner = null;
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
    box.setAttribute("role", "tooltip");
    box.append(content());
    box.addEventListener("mouseenter", () => clearTimeout(timer));
    box.addEventListener("mouseleave", hide);
    document.body.append(box);
    link.setAttribute("aria-describedby", box.id);
    place(link);
    const shown = box;
    if (window.MathJax && MathJax.typesetPromise) await MathJax.typesetPromise([shown]);
    if (box === shown) place(link);
  }

  function attach(link, content) {
    const soon = () => {
      clearTimeout(timer);
      if (owner !== link) timer = setTimeout(() => show(link, content), 150);
    };
    for (const event of ["mouseenter", "focus", "click"]) link.addEventListener(event, soon);
    link.addEventListener("blur", hide);
    link.addEventListener("mouseleave", () => { clearTimeout(timer); timer = setTimeout(hide, 250); });
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
    attach(number, () => document.createTextNode(text));
    number.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = step && group[group.indexOf(number) + step];
      if (!next) return;
      event.preventDefault();
      number.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
});
