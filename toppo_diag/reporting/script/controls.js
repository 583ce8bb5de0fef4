// What the reader can choose with.

import { big, data, el, nearest, tasks, unique } from "./data.js";
import { fill } from "./select.js";
import { cubeOf, run, set, state, toggle } from "./state.js";

let times = [];
export const controls = () => {
  fill(
    "run",
    data.runs.map((r, n) => [n, r.name]),
    "run",
  );
  fill(
    "other",
    [[-1, "no other run"], ...data.runs.map((r, n) => [n, r.name]).filter(([n]) => n !== state.run)],
    "other",
  );
  const sides = unique(run().cubes.map((c) => c.side));
  if (!sides.includes(state.side)) state.side = sides.includes(data.defaultSide) ? data.defaultSide : (sides[0] ?? "");
  fill(
    "side",
    sides.map((s) => [s, s]),
    "side",
  );
  const mine = run().cubes.filter((c) => c.side === state.side);
  fill(
    "condition",
    unique(mine.map((c) => c.condition)).map((c) => [c, c]),
    "condition",
  );
  const layers = mine.filter((c) => c.condition === state.condition).map((c) => c.layer || "");
  fill(
    "layer",
    unique(layers).map((l) => [l, l || "all layers"]),
    "layer",
  );
  times = cubeOf(run())?.steps ?? [];
  const t = state.step === null ? times.length - 1 : nearest(times, state.step);
  state.step = times[t] ?? null;
  el("step").max = Math.max(times.length - 1, 0);
  el("step").value = t;
  const text = times.length ? `${big(times[t])} ${run().step} (${t + 1} of ${times.length})` : "nothing recorded";
  el("step-text").textContent = text;
  el("step").setAttribute("aria-valuetext", text);
  for (const [id, k] of [
    ["pair-i", 0],
    ["pair-j", 1],
  ])
    if (state.pair) el(id).value = state.pair[k];
  for (const chip of el("chips").children)
    chip.setAttribute("aria-pressed", String(state.marked.includes(Number(chip.dataset.task))));
  el("marked-count").textContent = state.marked.length ? `${state.marked.length} marked` : "none marked";
  for (const part of document.querySelectorAll("[data-of-run]")) part.hidden = Number(part.dataset.ofRun) !== state.run;
};

export const listen = () => {
  for (const [id, key, read] of [
    ["side", "side", String],
    ["condition", "condition", String],
    ["layer", "layer", String],
    ["run", "run", Number],
    ["other", "other", Number],
    ["order", "order", String],
    ["contribution-kind", "contribution", String],
    ["total-kind", "total", String],
    ["curve-kind", "curve", String],
    ["theme", "theme", String],
  ])
    el(id).addEventListener("change", (event) => set({ [key]: read(event.target.value) }));
  el("step").addEventListener("input", (event) => set({ step: times[Number(event.target.value)] }));
  el("unmark").addEventListener("click", () => set({ marked: [] }));
  for (const id of ["pair-i", "pair-j"]) {
    el(id).append(...tasks.map((task, k) => new Option(task, k)));
    el(id).addEventListener("change", () => {
      const pair = [Number(el("pair-i").value), Number(el("pair-j").value)];
      if (pair[0] !== pair[1]) set({ pair });
      else controls();
    });
  }
  el("chips").append(
    ...tasks.map((task, k) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.dataset.task = k;
      chip.textContent = task;
      chip.addEventListener("click", () => toggle(k));
      return chip;
    }),
  );
  for (const button of document.querySelectorAll("button[data-show]")) {
    button.addEventListener("click", () => {
      const to = JSON.parse(button.dataset.show);
      set({
        run: to.run,
        side: to.side,
        condition: data.recorded,
        layer: to.layer,
        marked: to.tasks,
        ...(to.pair ? { pair: to.pair } : {}),
        ...(to.step === null ? {} : { step: to.step }),
        ...(to.choose || {}),
      });
      el(`view-${to.view}`).scrollIntoView();
    });
  }
  el("theme").value = state.theme;
  el("order").value = state.order;
};
