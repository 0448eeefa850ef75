// Shows what a link to a theorem, a definition or an equation leads to, while the link is pointed at or has the focus.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const known = new Map();
  for (const template of document.querySelectorAll("template.isce-preview-of"))
    known.set(template.dataset.href, template);
  if (known.size === 0) return;
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

  async function show(link, template) {
    hide();
    owner = link;
    box = document.createElement("div");
    box.className = "isce-preview";
    box.id = "isce-preview";
    box.setAttribute("role", "tooltip");
    box.append(template.content.cloneNode(true));
    box.addEventListener("mouseenter", () => clearTimeout(timer));
    box.addEventListener("mouseleave", hide);
    document.body.append(box);
    link.setAttribute("aria-describedby", box.id);
    place(link);
    const shown = box;
    if (window.MathJax && MathJax.typesetPromise) await MathJax.typesetPromise([shown]);
    if (box === shown) place(link);
  }

  for (const link of document.querySelectorAll("article a.reference")) {
    const template = known.get(link.getAttribute("href"));
    if (!template) continue;
    const soon = () => { clearTimeout(timer); timer = setTimeout(() => show(link, template), 150); };
    link.addEventListener("mouseenter", soon);
    link.addEventListener("focus", soon);
    link.addEventListener("blur", hide);
    link.addEventListener("mouseleave", () => { clearTimeout(timer); timer = setTimeout(hide, 250); });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
});
