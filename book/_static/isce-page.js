// Where a box scrolls sideways the keyboard must reach it, and a formula in a sentence must not leave the screen. On a
// phone a figure that is tapped is shown large. A formula, or code, that goes on beyond its box says so.
"use strict";
(() => {
  const BOXES = ".pst-scrollable-table-container, div.math, mjx-container[display], figure, pre";
  const wide = (box) => box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);

  function mark() {
    for (const formula of document.querySelectorAll("article .math > mjx-container:not([display])")) {
      formula.classList.remove("isce-wide");
      const block = formula.closest("p, li, dt, dd, td, th, figcaption, div");
      formula.classList.toggle("isce-wide", formula.offsetWidth > block.clientWidth);
    }
    for (const box of document.querySelectorAll("article :is(" + BOXES + "), article .isce-wide")) {
      if (wide(box)) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      if (wide(box)) box.onscroll = cue;
    }
    cue();
  }

  const CUED = "article :is(div.math, div.highlight)";
  function cue() {
    const beyond = (box) => wide(box) && box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
    for (const box of document.querySelectorAll(CUED))
      box.classList.toggle("isce-beyond", [box, ...box.querySelectorAll("mjx-container[display], pre")].some(beyond));
  }

  function enlarge(event) {
    if (!matchMedia("(max-width: 480px)").matches) return;
    event.currentTarget.closest("figure").classList.toggle("isce-large");
    mark();
  }

  window.addEventListener("load", () => {
    mark();
    document.documentElement.classList.add("isce-zooms");
    for (const picture of document.querySelectorAll("article figure img")) picture.addEventListener("click", enlarge);
    window.MathJax?.startup?.promise.then(mark);
    new ResizeObserver(mark).observe(document.body);
  });
})();
