// Colours, strokes and labels, in the light, the dark and the printed page.

import { data } from "./data.js";
import { state } from "./state.js";

export const MANY = 15; // with more tasks than this, a view names the extreme ones alone, as the figures do
const palettes = {
  light: data.colours,
  dark: ["#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00", "#DDDDDD", "#CC99FF"],
};
const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
export const printing = window.matchMedia("print");
export const system = window.matchMedia("(prefers-color-scheme: dark)");
export const isDark = () => !printing.matches && (state.theme || (system.matches ? "dark" : "light")) === "dark";
export const colour = (k) => palettes[isDark() ? "dark" : "light"][k % 10];
export const look = () =>
  isDark()
    ? { ink: "#ececf0", grid: "#3b3e47", paper: "#17181c", faint: "#4a4d57", middle: "#2a2b31" }
    : { ink: "#1d1d1f", grid: "#e3e3e8", paper: "#ffffff", faint: "#cfcfd6", middle: "#f7f7f7" };
export const diverging = () => [
  [0, isDark() ? "#4393c3" : "#053061"],
  [0.25, isDark() ? "#2f6690" : "#4393c3"],
  [0.5, look().middle],
  [0.75, isDark() ? "#a8503f" : "#d6604d"],
  [1, isDark() ? "#f4a582" : "#67001f"],
];
// Plotly reads a few tags in its labels; names of a run must not be read as such.
export const label = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
export const cut = (text, length = 24) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
export const layoutOf = (more) => {
  const c = look();
  const axis = { gridcolor: c.grid, zerolinecolor: c.grid, linecolor: c.grid, automargin: true };
  const made = {
    paper_bgcolor: c.paper,
    plot_bgcolor: c.paper,
    font: { color: c.ink, size: 12, family: "system-ui, sans-serif" },
    margin: { l: 60, r: 15, t: 30, b: 45 },
    hovermode: "closest",
    height: 360,
    ...more,
  };
  for (const key of Object.keys(made).filter((k) => /^[xy]axis/.test(k))) made[key] = { ...axis, ...made[key] };
  return made;
};
export const config = { displayModeBar: false, responsive: true, showTips: false };
export const dash = (n) => dashes[Math.floor(n / 10) % dashes.length];
