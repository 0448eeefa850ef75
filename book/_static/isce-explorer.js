// The interactive figure: a 2-D problem with three classes and linear scores z_k = s <v_k, x>.
// Shows the loss of a chosen class over the plane for both readings of I-SCE. No dependency; without it the page keeps
// its static picture. Formulas: theory pages "text reading" and "released reading".
"use strict";

(() => {
  const NAMES = ["a", "b", "c"];
  const V = [90, 210, 330].map((d) => [Math.cos((d * Math.PI) / 180), Math.sin((d * Math.PI) / 180)]);
  const HALF = 3; // the plane shown is [-3, 3] x [-3, 3]
  const CELLS = 96; // grid for contours; the colours use the same grid, smoothed by the canvas
  const RAMP = [[255, 234, 70], [222, 201, 88], [187, 172, 105], [149, 143, 120], [108, 110, 114], [63, 83, 108], [0, 48, 111], [0, 32, 76]];
  const RANGES = {
    text: { min: -2, max: 5, step: 0.1, start: 2, top: 7 },
    released: { min: 0, max: 0.5, step: 0.01, start: 0.1, top: 2 },
  };

  const scores = (state, x, y) => V.map(([a, b]) => state.scale * (a * x + b * y));
  const largest = (z) => z.indexOf(Math.max(...z));
  const margin = (z, k) => z[k] - Math.max(...z.filter((_, j) => j !== k));

  /** What the softmax sees; `predicted` is fixed by the caller where a derivative is taken beside the jump. */
  function outputs(state, z, predicted) {
    if (state.reading === "text") return z.map((v, k) => (k === state.target ? v - state.m : v));
    const norm = Math.hypot(...z) || 1;
    return z.map((v, k) => {
      if (k !== predicted) return v / norm;
      return state.clip ? Math.min(1, v / norm + state.m) : v / norm + state.m;
    });
  }

  function crossEntropy(o, k) {
    const top = Math.max(...o);
    return top - o[k] + Math.log(o.reduce((sum, v) => sum + Math.exp(v - top), 0));
  }

  function loss(state, x, y, predicted = largest(scores(state, x, y))) {
    return crossEntropy(outputs(state, scores(state, x, y), predicted), state.target);
  }

  function gradient(state, x, y) {
    const p = largest(scores(state, x, y));
    const h = 1e-4;
    return [
      (loss(state, x + h, y, p) - loss(state, x - h, y, p)) / (2 * h),
      (loss(state, x, y + h, p) - loss(state, x, y - h, p)) / (2 * h),
    ];
  }

  function colour(share) {
    const at = Math.min(0.999, Math.max(0, share)) * (RAMP.length - 1);
    const i = Math.floor(at);
    return RAMP[i].map((v, c) => v + (at - i) * (RAMP[i + 1][c] - v));
  }

  /** Line segments where `f` crosses 0 on the grid (marching squares, linear between corners). */
  function zeroLine(f, draw) {
    const at = (i) => -HALF + (2 * HALF * i) / CELLS;
    const values = [];
    for (let j = 0; j <= CELLS; j++) for (let i = 0; i <= CELLS; i++) values.push(f(at(i), at(j)));
    const value = (i, j) => values[j * (CELLS + 1) + i];
    for (let j = 0; j < CELLS; j++) {
      for (let i = 0; i < CELLS; i++) {
        const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
        const crossings = [];
        corners.forEach(([ai, aj], n) => {
          const [bi, bj] = corners[(n + 1) % 4];
          const [a, b] = [value(ai, aj), value(bi, bj)];
          if (a < 0 !== b < 0) crossings.push([at(ai) + (a / (a - b)) * (at(bi) - at(ai)), at(aj) + (a / (a - b)) * (at(bj) - at(aj))]);
        });
        for (let n = 0; n + 1 < crossings.length; n += 2) draw(crossings[n], crossings[n + 1]);
      }
    }
  }

  function paint(canvas, state) {
    const side = canvas.width;
    const ctx = canvas.getContext("2d");
    const px = (x) => ((x + HALF) / (2 * HALF)) * side;
    const py = (y) => ((HALF - y) / (2 * HALF)) * side;
    const small = document.createElement("canvas");
    small.width = small.height = 2 * CELLS;
    const image = small.getContext("2d").createImageData(small.width, small.height);
    for (let n = 0; n < small.width * small.height; n++) {
      const x = -HALF + ((n % small.width) + 0.5) * (HALF / CELLS);
      const y = HALF - (Math.floor(n / small.width) + 0.5) * (HALF / CELLS);
      image.data.set([...colour(loss(state, x, y) / RANGES[state.reading].top), 255], 4 * n);
    }
    small.getContext("2d").putImageData(image, 0, 0);
    ctx.drawImage(small, 0, 0, side, side);

    /** Segments with a dark rim. Dashes run on from one segment of a straight line to the next. */
    const stroke = (segments, width, dash = []) => {
      ctx.setLineDash(dash.map((d) => (d * side) / 400));
      for (const [lineWidth, style] of [[width + 2, "rgba(0,0,0,.55)"], [width, "#fff"]]) {
        ctx.lineWidth = (lineWidth * side) / 400;
        ctx.strokeStyle = style;
        segments((a, b) => {
          const [dx, dy] = [px(b[0]) - px(a[0]), py(b[1]) - py(a[1])];
          const sign = Math.abs(dx) > 1e-9 ? Math.sign(dx) : Math.sign(dy);
          const [from, to] = sign < 0 ? [b, a] : [a, b];
          const size = Math.hypot(dx, dy) || 1;
          ctx.lineDashOffset = (sign * (dx * px(from[0]) + dy * py(from[1]))) / size;
          ctx.beginPath();
          ctx.moveTo(px(from[0]), py(from[1]));
          ctx.lineTo(px(to[0]), py(to[1]));
          ctx.stroke();
        });
      }
      ctx.setLineDash([]);
    };
    // Decisions: between the directions of two classes, from the origin outwards.
    stroke((draw) => V.forEach(([a, b]) => draw([0, 0], [-2 * HALF * a, -2 * HALF * b])), 2);
    if (state.reading === "text" && state.m !== 0) {
      stroke((draw) => zeroLine((x, y) => margin(scores(state, x, y), state.target) - state.m, draw), 1.5, [9, 7]);
    }
    if (state.reading === "released" && state.clip) {
      const beyond = (x, y) => {
        const z = scores(state, x, y);
        return Math.max(...z) / (Math.hypot(...z) || 1) + state.m - 1;
      };
      stroke((draw) => zeroLine(beyond, draw), 1.2, [3, 5]);
    }
    arrows(ctx, state, px, py, side);
    ctx.font = `600 ${Math.round(side / 25)}px sans-serif`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    V.forEach(([a, b], k) => {
      ctx.lineWidth = side / 100;
      ctx.strokeStyle = "rgba(0,0,0,.75)";
      ctx.fillStyle = "#fff";
      const label = `class ${NAMES[k]}`;
      ctx.strokeText(label, px(2.45 * a), py(2.45 * b + (k ? 0 : 0.15)));
      ctx.fillText(label, px(2.45 * a), py(2.45 * b + (k ? 0 : 0.15)));
    });
    ctx.lineWidth = side / 200;
    ctx.strokeStyle = "#000";
    ctx.fillStyle = "#fff";
    ctx.beginPath();
    ctx.arc(px(state.x), py(state.y), side / 60, 0, 2 * Math.PI);
    ctx.fill();
    ctx.stroke();
  }

  function arrows(ctx, state, px, py, side) {
    const points = [];
    for (let i = -4; i <= 4; i++) for (let j = -4; j <= 4; j++) points.push([0.65 * i, 0.65 * j]);
    const gradients = points.map(([x, y]) => (Math.hypot(x, y) < 0.3 ? [0, 0] : gradient(state, x, y)));
    const text = state.reading === "text";
    const longest = text ? state.scale * Math.sqrt(3) : Math.max(...gradients.map((g) => Math.hypot(...g)));
    points.forEach(([x, y], n) => {
      const size = Math.hypot(...gradients[n]);
      const length = 0.55 * Math.sqrt(size / (longest || 1));
      if (length < 0.03) return;
      const [dx, dy] = gradients[n].map((v) => (-v / size) * length);
      const [ax, ay, bx, by] = [px(x - dx / 2), py(y - dy / 2), px(x + dx / 2), py(y + dy / 2)];
      const angle = Math.atan2(by - ay, bx - ax);
      const head = side * Math.min(0.018, 0.05 * length);
      for (const [width, style] of [[3, "rgba(255,255,255,.8)"], [1.4, "#000"]]) {
        ctx.lineWidth = (width * side) / 500;
        ctx.strokeStyle = style;
        ctx.beginPath();
        ctx.moveTo(ax, ay);
        ctx.lineTo(bx, by);
        for (const turn of [2.6, -2.6]) {
          ctx.moveTo(bx, by);
          ctx.lineTo(bx + head * Math.cos(angle + turn), by + head * Math.sin(angle + turn));
        }
        ctx.stroke();
      }
    });
  }

  /** A number as the book prints it, with a minus sign instead of a hyphen. */
  const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0\.?0*$)?/, (_, zero) => zero ?? "\u2212");

  function describe(state) {
    const z = scores(state, state.x, state.y);
    const [value, sce] = [loss(state, state.x, state.y), crossEntropy(z, state.target)];
    const size = Math.hypot(...gradient(state, state.x, state.y));
    const plain = Math.hypot(...gradient({ ...state, reading: "text", m: 0 }, state.x, state.y));
    const ratio = plain > 0 ? (size / plain).toFixed(2) : "–";
    return `At the marked input (${fixed(state.x, 2)}, ${fixed(state.y, 2)}): predicted class ${NAMES[largest(z)]}, ` +
      `margin of class ${NAMES[state.target]} ${fixed(margin(z, state.target), 2)}, SCE ${sce.toFixed(3)}, ` +
      `loss ${value.toFixed(3)}, its gradient ${ratio} times as long as SCE's.`;
  }

  const CONTROLS = `
    <div class="isce-explorer-canvas">
      <canvas width="800" height="800" tabindex="0" role="img"></canvas>
      <div class="isce-explorer-scale" aria-hidden="true"><span>loss 0</span><i></i><span class="isce-top"></span></div>
    </div>
    <form class="isce-explorer-controls">
      <fieldset><legend>Reading</legend>
        <label><input type="radio" name="isce-reading" value="text" checked> text</label>
        <label><input type="radio" name="isce-reading" value="released"> released</label>
        <label class="isce-clip" hidden><input type="checkbox" name="isce-clip" checked> with the clip</label>
      </fieldset>
      <fieldset><legend>True class</legend>
        ${NAMES.map((n, k) => `<label><input type="radio" name="isce-target" value="${k}" ${k ? "" : "checked"}> ${n}</label>`).join("")}
      </fieldset>
      <label class="isce-slider">Inference information <i>m</i> = <output class="isce-m"></output><input type="range" name="isce-m"></label>
      <label class="isce-slider">Scale of the scores <i>s</i> = <output class="isce-s"></output>
        <input type="range" name="isce-s" min="0.25" max="4" step="0.05" value="1"></label>
      <p class="isce-explorer-hint"><span class="isce-fine">Click into the picture to mark an input, or focus it and use the
        arrow keys.</span><span class="isce-coarse">Tap the picture to mark an input.</span></p>
      <p class="isce-explorer-readout" aria-live="polite"></p>
    </form>`;

  function start(box) {
    const state = { reading: "text", target: 0, m: 2, scale: 1, clip: true, x: 0.4, y: 1.2 };
    const app = document.createElement("div");
    app.className = "isce-explorer-app";
    app.innerHTML = CONTROLS;
    const find = (selector) => app.querySelector(selector);
    const [canvas, form, slider] = [find("canvas"), find("form"), find("input[name=isce-m]")];

    const setRange = () => {
      const range = RANGES[state.reading];
      Object.assign(slider, { min: range.min, max: range.max, step: range.step });
      slider.value = range.start;
    };
    const refresh = () => {
      state.m = Number(slider.value);
      state.scale = Number(form.elements["isce-s"].value);
      state.target = Number(form.elements["isce-target"].value);
      state.clip = form.elements["isce-clip"].checked;
      find(".isce-clip").hidden = state.reading !== "released";
      const m = fixed(state.m, state.reading === "text" ? 1 : 2);
      find(".isce-m").textContent = m;
      find(".isce-s").textContent = state.scale.toFixed(2);
      find(".isce-top").textContent = `${RANGES[state.reading].top} and more`;
      const text = describe(state);
      find(".isce-explorer-readout").textContent = text;
      canvas.setAttribute("aria-label", `Loss of class ${NAMES[state.target]} over the plane, ${state.reading} reading, m = ${m}. ${text}`);
      paint(canvas, state);
    };
    const mark = (x, y) => {
      state.x = Math.min(HALF, Math.max(-HALF, x));
      state.y = Math.min(HALF, Math.max(-HALF, y));
      refresh();
    };
    let waiting = false;
    form.addEventListener("input", (event) => {
      if (event.target.name === "isce-reading") {
        state.reading = event.target.value;
        setRange();
      }
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; refresh(); });
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      const frame = canvas.getBoundingClientRect();
      mark(((event.clientX - frame.left) / frame.width) * 2 * HALF - HALF, HALF - ((event.clientY - frame.top) / frame.height) * 2 * HALF);
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      mark(state.x + step[0], state.y + step[1]);
    });
    setRange();
    refresh();
    box.prepend(app);
    box.classList.add("isce-explorer-live");
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".isce-explorer").forEach(start));
})();
