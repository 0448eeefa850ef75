// The worked example of the first page with a slider for m: what I-SCE makes of three logits, and SCE as a ghost beside
// it. No dependency; without it the page keeps its static picture. The logits are those of isce/report/worked.py.
"use strict";

(() => {
  const NAMES = ["cat", "dog", "fox"];
  const LOGITS = [4, 2.5, 1];
  const LEAD = LOGITS[0] - LOGITS[1];
  const BARS = { left: 34, right: 296, top: 12, bottom: 196 };
  const CURVE = { left: 360, right: 632, top: 12, bottom: 196, from: -2, to: 7, high: 5 };

  /** Softmax and loss of the logits whose first class leads by `lead`, after the term. */
  function work(m, lead = LEAD) {
    const seen = LOGITS.map((z, k) => (k ? z : LOGITS[1] + lead - m));
    const top = Math.max(...seen);
    const parts = seen.map((z) => Math.exp(z - top));
    const sum = parts.reduce((a, b) => a + b);
    return { p: parts.map((part) => part / sum), loss: top - seen[0] + Math.log(sum) };
  }

  const fixed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
  const x = (lead) => CURVE.left + ((lead - CURVE.from) / (CURVE.to - CURVE.from)) * (CURVE.right - CURVE.left);
  const y = (loss) => CURVE.bottom - (Math.min(loss, CURVE.high) / CURVE.high) * (CURVE.bottom - CURVE.top);

  function bars(m) {
    const wide = (BARS.right - BARS.left) / NAMES.length;
    const [ours, plain] = [work(m).p, work(0).p];
    const height = (p) => p * (BARS.bottom - BARS.top);
    return NAMES.map((name, k) => {
      const middle = BARS.left + (k + 0.5) * wide;
      const bar = (p, width, kind) =>
        `<rect class="${kind}" x="${middle - width / 2}" y="${BARS.bottom - height(p)}" width="${width}" height="${height(p)}"/>`;
      return bar(ours[k], 44, "isce-worked-ours") + bar(plain[k], 60, "isce-worked-ghost") +
        `<text x="${middle}" y="${BARS.bottom + 18}" text-anchor="middle">${name}</text>`;
    }).join("");
  }

  function curves(m) {
    const line = (of, kind) => {
      const points = [];
      for (let lead = CURVE.from; lead <= CURVE.to + 1e-9; lead += 0.1) {
        const { loss } = work(of, lead);
        if (loss <= CURVE.high) points.push(`${x(lead).toFixed(1)},${y(loss).toFixed(1)}`);
      }
      return `<polyline class="${kind}-line" points="${points.join(" ")}"/>` +
        `<circle class="${kind}-dot" cx="${x(LEAD)}" cy="${y(work(of).loss)}" r="5"/>`;
    };
    const ticks = [-2, 0, 2, 4, 6].map((lead) =>
      `<text x="${x(lead)}" y="${CURVE.bottom + 18}" text-anchor="middle">${fixed(lead, 0)}</text>`);
    const heights = [1, 2, 3, 4, 5].map((loss) =>
      `<text x="${CURVE.left - 6}" y="${y(loss) + 5}" text-anchor="end">${loss}</text>`);
    return line(0, "isce-worked-ghost") + line(m, "isce-worked-ours") + ticks.join("") + heights.join("") +
      `<text x="${(CURVE.left + CURVE.right) / 2}" y="${CURVE.bottom + 46}" text-anchor="middle">lead of cat over dog</text>` +
      `<text x="${CURVE.left + 6}" y="${CURVE.bottom - 8}">loss</text>`;
  }

  const axes = (box) => `<path class="isce-worked-axis" d="M${box.left} ${box.top}V${box.bottom}H${box.right}"/>`;

  function picture(m) {
    return `<svg viewBox="0 0 640 250" role="img" aria-label="${describe(m)}">${axes(BARS)}${axes(CURVE)}` +
      `<text x="${(BARS.left + BARS.right) / 2}" y="${BARS.bottom + 46}" text-anchor="middle">probability in the loss</text>` +
      `<text x="${BARS.left - 6}" y="${BARS.top + 5}" text-anchor="end">1</text>` +
      `<text x="${BARS.left - 6}" y="${BARS.bottom}" text-anchor="end">0</text>${bars(m)}${curves(m)}</svg>`;
  }

  function describe(m) {
    const [ours, plain] = [work(m), work(0)];
    const weight = (1 - ours.p[0]) / (1 - plain.p[0]);
    return `I-SCE with m = ${fixed(m, 1)}: probability of cat ${Math.round(100 * ours.p[0])}% (SCE ${Math.round(100 * plain.p[0])}%), ` +
      `loss ${ours.loss.toFixed(3)} (SCE ${plain.loss.toFixed(3)}), pull ${weight.toFixed(2)} times as strong.`;
  }

  function start(box) {
    const app = document.createElement("div");
    app.className = "isce-worked-app";
    app.innerHTML = `<div class="isce-worked-picture"></div>
      <label class="isce-worked-slider">Inference information <i>m</i> = <output></output>
        <input type="range" min="-2" max="5" step="0.1" value="2"></label>
      <p class="isce-worked-key"><span class="isce-worked-mark isce-worked-mark-ours"></span> I-SCE
        <span class="isce-worked-mark isce-worked-mark-ghost"></span> SCE (<i>m</i> = 0)</p>
      <p class="isce-worked-readout" aria-live="polite"></p>`;
    const slider = app.querySelector("input");
    const refresh = () => {
      const m = Number(slider.value);
      app.querySelector("output").textContent = fixed(m, 1);
      app.querySelector(".isce-worked-picture").innerHTML = picture(m);
      app.querySelector(".isce-worked-readout").textContent = describe(m);
    };
    slider.addEventListener("input", refresh);
    refresh();
    box.prepend(app);
    box.classList.add("isce-worked-live");
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".isce-worked").forEach(start));
})();
