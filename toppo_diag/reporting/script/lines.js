// Views over time with one line for each task: norms, contributions, curves.

import { big, column, data, K, nearest, number, short, tasks, values } from "./data.js";
import { absent, command, describe, draw, sideFlag } from "./frame.js";
import { colour, cut, dash, label, look, MANY } from "./look.js";
import { fill } from "./select.js";
import { linesOf, run, state, toggle } from "./state.js";

export const timeAxis = () => ({
  title: { text: run().step },
  range: state.range ? [...state.range] : undefined,
  autorange: !state.range,
});
export const now = () =>
  state.step === null
    ? []
    : [
        {
          type: "line",
          x0: state.step,
          x1: state.step,
          y0: 0,
          y1: 1,
          yref: "paper",
          line: { color: look().ink, width: 1, dash: "dot" },
        },
      ];
const named = (last) => {
  if (state.marked.length) return new Set(state.marked);
  if (K <= MANY) return new Set(tasks.keys());
  const known = [...tasks.keys()].filter((k) => Number.isFinite(last[k])).sort((a, b) => last[a] - last[b]);
  return new Set([...known.slice(0, 4), ...known.slice(-4)]);
};
export const line = (steps, y, name, digits) => ({
  x: steps,
  y,
  title: name,
  name: label(cut(name)),
  meta: label(name),
  mode: steps.length < 30 ? "lines+markers" : "lines",
  marker: { size: 4 },
  hovertemplate: `%{meta}<br>%{x:,}: %{y:${digits}}<extra></extra>`,
});
const taskTraces = (lines, dashed = null) => {
  const all = values(lines, "values");
  const last = all.slice((lines.steps.length - 1) * K);
  const chosen = named(last);
  const place = [...chosen];
  return tasks
    .map((task, k) => {
      const shown = chosen.has(k);
      const nth = K <= MANY ? k : place.indexOf(k);
      return {
        ...line(lines.steps, column(lines, "values", K, k), task, ".4g"),
        showlegend: shown,
        customdata: lines.steps.map(() => k),
        line: shown
          ? { color: colour(nth), width: state.marked.length ? 2.5 : 1.5, dash: dashed || dash(nth) }
          : { color: look().faint, width: 1 },
      };
    })
    .sort((a, b) => a.showlegend - b.showlegend);
};
const taskRows = (lines, name) => () => [
  ["run", "side", data.stepColumn, "task", name],
  ...lines.steps.flatMap((s, t) =>
    tasks.map((task, k) => [run().name, lines.side, s, task, number(values(lines, "values")[t * K + k])]),
  ),
];
const taskView = (id, lines, yaxis, commandText, why) => {
  if (!lines) return absent(id, why);
  const other =
    state.other >= 0 &&
    data.runs[state.other].lines.find((l) => l.view === lines.view && l.side === lines.side && l.name === lines.name);
  const traces = taskTraces(lines);
  if (other && state.marked.length) {
    traces.push(
      ...taskTraces(other, "dash")
        .filter((t) => t.showlegend)
        .map((t) => ({ ...t, title: `${t.title} (${data.runs[state.other].name})` })),
    );
  }
  draw(
    id,
    traces,
    { xaxis: timeAxis(), yaxis: { title: { text: label(lines.name) }, ...yaxis }, shapes: now() },
    (point) => toggle(point.customdata),
  );
  const t = nearest(lines.steps, state.step ?? lines.steps.at(-1));
  const at = tasks
    .map((task, k) => [values(lines, "values")[t * K + k], task])
    .filter(([v]) => Number.isFinite(v))
    .sort((a, b) => a[0] - b[0]);
  const words = at.length
    ? `${lines.name} at ${big(lines.steps[t])} ${run().step}: from ${short(at[0][0])} (${at[0][1]}) to ${short(at.at(-1)[0])} (${at.at(-1)[1]}).`
    : `${lines.name}: no number at this time.`;
  describe(id, words, commandText, taskRows(lines, lines.name));
};
export const log = { type: "log", exponentformat: "power" };

export function norms() {
  taskView(
    "norms",
    linesOf(run(), "norms")[0],
    log,
    command("norms", sideFlag()),
    "This run recorded no Gram of this side.",
  );
}

export function contributions() {
  const kinds = ["contributions", "shares", "weights"].flatMap((view) => linesOf(run(), view));
  fill(
    "contribution-kind",
    kinds.map((l) => [l.name, l.name]),
    "contribution",
  );
  const lines = kinds.find((l) => l.name === state.contribution);
  const figure = { contributions: "contributions", weights: "weights" }[lines?.view];
  taskView(
    "contributions",
    lines,
    lines?.view === "contributions" ? log : {},
    figure ? command(figure, sideFlag()) : "",
    "No snapshot was recorded, so the step is not known. Record with snapshots.",
  );
}

export function curves() {
  const kinds = run().lines.filter((l) => l.view === "curves");
  fill(
    "curve-kind",
    kinds.map((l) => [l.name, l.name]),
    "curve",
  );
  const lines = kinds.find((l) => l.name === state.curve);
  taskView(
    "curves",
    lines,
    {},
    lines?.name.includes("evaluation") ? command("curves") : "",
    "The run recorded neither success nor losses. Record a scalar named success or loss, one number for each task.",
  );
}
