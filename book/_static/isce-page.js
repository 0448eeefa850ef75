// Where a box scrolls sideways the keyboard must reach it, and a formula in a sentence must not leave the screen.
"use strict";
(() => {
  const BOXES = ".pst-scrollable-table-container, div.math, mjx-container[display], figure, pre";
  const wide = (box) => box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);

  function mark() {
    for (const formula of document.querySelectorAll("article .math > mjx-container:not([display])")) {
      formula.classList.remove("isce-wide");
      const block = formula.parentElement.parentElement;
      formula.classList.toggle("isce-wide", formula.offsetWidth > block.clientWidth);
    }
    for (const box of document.querySelectorAll("article :is(" + BOXES + "), article .isce-wide")) {
      if (wide(box)) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  window.addEventListener("load", () => {
    mark();
    window.MathJax?.startup?.promise.then(mark);
    new ResizeObserver(mark).observe(document.body);
  });
})();
