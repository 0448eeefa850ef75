// Below each result of the search the first words of its page.
"use strict";
(() => {
  const box = document.getElementById("search-results");
  if (!box || typeof EXCERPTS === "undefined") return;
  new MutationObserver((changes) => {
    for (const item of changes.flatMap((change) => [...change.addedNodes])) {
      if (item.nodeName !== "LI") continue;
      const link = item.querySelector("a");
      const text = EXCERPTS[decodeURI(link.getAttribute("href")).replace(/\.html.*/, "")];
      if (text) item.append(Object.assign(document.createElement("p"), { className: "isce-excerpt", textContent: text }));
    }
  }).observe(box, { childList: true, subtree: true });
})();
