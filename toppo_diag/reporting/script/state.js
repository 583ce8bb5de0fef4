// What the reader has chosen. It is kept for the next time that the page is loaded.

import { data, el, K } from "./data.js";

const first = data.runs.findIndex((run) => run.cubes.length);
export const state = {
  run: Math.max(first, 0),
  other: -1,
  side: "",
  condition: "",
  layer: "",
  step: null,
  order: "recorded",
  marked: [],
  pair: K > 1 ? [0, 1] : null,
  range: null,
  theme: "",
  contribution: "",
  total: "",
  curve: "",
};
const memory = `toppo-report:${location.pathname}`;
export const remember = () => {
  try {
    sessionStorage.setItem(memory, JSON.stringify(state));
  } catch {
    // a notebook's frame has no storage
  }
};
try {
  const before = JSON.parse(sessionStorage.getItem(memory) || "{}");
  for (const key of Object.keys(state)) if (key in before) state[key] = before[key];
  state.marked = state.marked.filter((k) => k < K);
  if (!data.runs[state.run]) state.run = 0;
  if (!data.runs[state.other]) state.other = -1;
  if (state.pair && Math.max(...state.pair) >= K) state.pair = K > 1 ? [0, 1] : null;
} catch {
  // as above
}
export const run = () => data.runs[state.run];
export const cubeOf = (of, layer = state.layer, condition = state.condition) =>
  of.cubes.find((c) => c.side === state.side && c.condition === condition && (c.layer || "") === layer);
export const linesOf = (of, view) =>
  of.lines.filter((l) => l.view === view && (l.side === state.side || l.side === ""));

let changed = () => {};
// What is called after the state has changed, once per frame.
export const whenChanged = (call) => {
  changed = call;
};
let waiting = false;
export const set = (change, goToHeatmap = false) => {
  Object.assign(state, change);
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      changed();
      if (goToHeatmap) el("view-heatmap").scrollIntoView();
    });
  }
};
export const toggle = (k) =>
  set({ marked: state.marked.includes(k) ? state.marked.filter((m) => m !== k) : [...state.marked, k] });
export const zoomed = (change) => {
  if (change["xaxis.range[0]"] !== undefined) set({ range: [change["xaxis.range[0]"], change["xaxis.range[1]"]] });
  else if (change["xaxis.autorange"]) set({ range: null });
};
