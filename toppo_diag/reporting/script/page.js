// The report's script starts here.

import { controls, listen } from "./controls.js";
import { data, el } from "./data.js";
import { frame } from "./frame.js";
import { heatmap } from "./heatmap.js";
import { layers } from "./layers.js";
import { contributions, curves, norms } from "./lines.js";
import { isDark, printing, system } from "./look.js";
import { pair } from "./pair.js";
import { remember, set, whenChanged } from "./state.js";
import { totals } from "./totals.js";

const views = { norms, contributions, curves, totals, heatmap, pair, layers };

// A view is drawn when it comes into sight, so that a page of many tasks opens and moves quickly.
const stale = new Set();
const inSight = new Set();
const refresh = (id) => {
  stale.delete(id);
  views[id]();
};
const refreshAll = () => [...stale].forEach(refresh);
const sight = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const id = entry.target.querySelector(".plot").id;
      if (entry.isIntersecting) inSight.add(id);
      else inSight.delete(id);
      if (entry.isIntersecting && stale.has(id)) refresh(id);
    }
  },
  { rootMargin: "400px" },
);

const redraw = () => {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  controls();
  for (const id of Object.keys(views)) stale.add(id);
  for (const id of [...stale]) if (inSight.has(id)) refresh(id);
  remember();
};

// A run that goes on: the page is loaded again, unless the reader is doing something.
const follow = () => {
  el("following").textContent = `This page looks for news every ${data.follow} s while the report is being renewed.`;
  let touched = 0;
  for (const kind of ["pointerdown", "keydown"])
    window.addEventListener(kind, () => {
      touched = Date.now();
    });
  setInterval(() => {
    if (Date.now() - touched > 3000 && !document.hidden) location.reload();
  }, 1000 * data.follow);
};

const start = () => {
  whenChanged(redraw);
  listen();
  system.addEventListener("change", () => set({}));
  printing.addEventListener("change", () => {
    redraw();
    if (printing.matches) refreshAll();
  });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      set({});
    }
  });

  if (data.follow) follow();
  el("views").hidden = false;
  for (const id of Object.keys(views)) {
    frame(id);
    sight.observe(el(id).closest("section"));
  }
  redraw();
  document.documentElement.dataset.ready = "true";
};

// Where nothing is recorded yet, the findings say so.
if (data.runs.some((run) => run.cubes.length || run.lines.length)) start();
