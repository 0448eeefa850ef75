// The gallery of images under attack: one table, of which the reader chooses the data set, and one attack on every loss
// or every attack on one loss. Pictures come from one file for each data set, of which every cell shows a part.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const boxes = [...document.querySelectorAll(".isce-gallery")];
  if (!boxes.length) return;
  const sets = boxes.map((box) => JSON.parse(box.querySelector("script").textContent));
  const form = document.createElement("form");
  form.className = "isce-chooser-controls isce-gallery-controls";
  form.autocomplete = "off";
  form.innerHTML = `<label>Data set <select name="data"></select></label><label>Show <select name="view"></select></label>`;
  const { data, view } = form.elements;
  data.append(...sets.map(({ title }, number) => new Option(title, number)));

  /** Both ways to cut the table: an attack (-1: none) of every loss, a loss under every attack. */
  function offer() {
    const { losses, attacks } = sets[data.value];
    const groups = [
      ["One attack, every loss", "attack", ["no attack", ...attacks.map(([name]) => name)], -1],
      ["One loss, every attack", "loss", losses, 0],
    ];
    const chosen = view.value;
    view.replaceChildren(...groups.map(([label, kind, names, first]) => {
      const group = Object.assign(document.createElement("optgroup"), { label });
      group.append(...names.map((name, number) => new Option(name, `${kind} ${number + first}`)));
      return group;
    }));
    view.value = chosen || "attack 0";
    if (!view.value) view.value = "attack 0";
  }

  /** One part of the table, for one loss under one attack: a copy of another with its own places and words. */
  function part(like, { found, factors, attacks, classes }, name, loss, attack) {
    const body = like.cloneNode(true), [head, row] = body.rows;
    const factor = attack < 0 ? "" : factors[loss][attack];
    const note = document.createElement("span");
    note.textContent = factor ? `change × ${factor}` : attack < 0 ? "" : "no change";
    head.cells[0].replaceChildren(`${name} `, note);
    classes.forEach((_, number) => {
      const cell = row.cells[number], [image, change] = cell.querySelectorAll(".isce-tile"), text = cell.querySelector("p");
      const [taken, percent, right] = found[loss][attack + 1][number];
      for (const tile of [image, change])
        tile.style.setProperty("--isce-row", attack < 0 ? 0 : 1 + loss * attacks.length + attack);
      change.hidden = attack < 0;
      text.textContent = `${taken} (${percent}%)${right ? "" : " ≠"}`;
      text.classList.toggle("isce-wrong", !right);
    });
    return body;
  }

  function refresh() {
    const set = sets[data.value], table = boxes[data.value].querySelector("table"), like = table.tBodies[0];
    const [kind, number] = [view.value.split(" ")[0], Number(view.value.split(" ")[1])];
    const named = (attack) => (attack < 0 ? "no attack" : set.attacks[attack].join(", "));
    const parts = kind === "attack"
      ? set.losses.map((name, loss) => part(like, set, name, loss, number))
      : [-1, ...set.attacks.keys()].map((attack) => part(like, set, named(attack), number, attack));
    table.replaceChildren(table.caption, table.tHead, ...parts);
    table.caption.querySelector("b").textContent = `${set.title}, ${kind === "attack" ? named(number) : set.losses[number]}.`;
    boxes.forEach((box, place) => (box.hidden = place !== Number(data.value)));
  }

  form.addEventListener("input", (event) => {
    if (event.target === data) offer();
    refresh();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  boxes[0].before(form);
  offer();
  refresh();
});
