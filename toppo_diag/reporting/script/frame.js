// The frame of a view: its picture, its words, its command and its table.
// Text of a run reaches the page as text nodes, and Plotly as escaped labels. Nothing is evaluated or fetched.

import { el } from "./data.js";
import { config, layoutOf, printing } from "./look.js";
import { run, state, zoomed } from "./state.js";

const tables = {}; // view -> () => rows, the first is the header
export const frame = (id) => {
  const section = el(id).closest("section");
  if (section.querySelector(".save")) return section;
  const words = document.createElement("p");
  words.className = "words";
  words.id = `${id}-words`;
  const save = document.createElement("button");
  save.type = "button";
  save.className = "save";
  save.textContent = "Download CSV";
  save.addEventListener("click", () => download(id));
  const command = document.createElement("p");
  command.className = "command";
  const legend = document.createElement("p");
  legend.className = "legend";
  section.append(legend, words, save, command);
  return section;
};
export const describe = (id, words, command, rows) => {
  const section = frame(id);
  section.querySelector(".words").textContent = words;
  section.querySelector(".words").hidden = !rows; // what is absent says so in its own place
  el(id).setAttribute("role", "img");
  el(id).setAttribute("aria-label", words);
  const line = section.querySelector(".command");
  line.textContent = command ? "As a static figure: " : "";
  if (command) {
    const code = document.createElement("code");
    code.textContent = command;
    line.append(code);
  }
  tables[id] = rows;
  section.querySelector(".save").hidden = !rows;
};
export const absent = (id, why) => {
  Plotly.purge(el(id));
  const p = document.createElement("p");
  p.className = "absent";
  p.textContent = why;
  el(id).replaceChildren(p);
  el(id).closest("section").querySelector(".legend").replaceChildren();
  describe(id, why, "", null);
};
// A line's name and stroke, for the legend below a picture. Plotly's own overlaps other text on a narrow screen.
const key = ({ title, line }) => {
  const entry = document.createElement("span");
  const stroke = document.createElement("span");
  stroke.style.borderTop = `3px ${{ solid: "solid", dot: "dotted" }[line.dash || "solid"] || "dashed"} ${line.color}`;
  entry.append(stroke, title);
  return entry;
};
const listeners = new Set();
export const draw = (id, traces, layout, onClick) => {
  const div = el(id);
  if (div.querySelector(".absent")) div.replaceChildren();
  // A picture keeps a legible width; on a narrow screen it scrolls within its frame.
  const width = Math.max(printing.matches ? 680 : div.clientWidth, layout.least || 320);
  delete layout.least;
  div.style.minHeight = "0"; // the room that was kept for it until now
  const drawn = traces.map(({ title, ...trace }) => trace);
  Plotly.react(div, drawn, layoutOf({ ...layout, width, showlegend: false }), config);
  div
    .closest("section")
    .querySelector(".legend")
    .replaceChildren(...traces.filter((t) => t.showlegend).map(key));
  if (!listeners.has(id)) {
    listeners.add(id);
    div.on("plotly_click", (event) => div.onPoint?.(event.points[0]));
    div.on("plotly_relayout", (change) => zoomed(change));
  }
  div.onPoint = onClick;
};
const cell = (x) => {
  const text = x === null || x === undefined ? "" : String(x);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const download = (id) => {
  const text = `${tables[id]()
    .map((row) => row.map(cell).join(","))
    .join("\n")}\n`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${run().file}-${id}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
// A name of a run as one word of a command line.
export const word = (text) => (/^[\w.,:=@%+/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
export const command = (name, more = "") => `toppo-diag ${name} ${run().quoted}${more}`;
export const sideFlag = () => ` --side ${state.side}`;
