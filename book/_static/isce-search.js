// Below each result of the search the first words of its page.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("search-results");
  if (!box || typeof EXCERPTS === "undefined") return;
  new MutationObserver(() => {
    for (const item of box.querySelectorAll("ul.search > li:not(:has(.isce-excerpt))")) {
      const text = EXCERPTS[decodeURI(item.querySelector("a").getAttribute("href")).replace(/\.html.*/, "")];
      if (text) item.append(Object.assign(document.createElement("p"), { className: "isce-excerpt", textContent: text }));
    }
  }).observe(box, { childList: true, subtree: true });
});
