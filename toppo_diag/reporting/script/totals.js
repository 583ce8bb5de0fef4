// The view of the numbers that a run has one of at each time, with seeds joined.

import { big, column, data, nearest, number, short, unique, values } from "./data.js";
import { absent, command, describe, draw, sideFlag } from "./frame.js";
import { line, log, now, timeAxis } from "./lines.js";
import { colour, dash, label, look } from "./look.js";
import { fill } from "./select.js";
import { run, state } from "./state.js";

export function totals() {
  const kinds = unique(
    data.runs
      .flatMap((r) => r.totals)
      .filter((t) => t.side === state.side || t.side === "")
      .map((t) => t.name),
  );
  fill(
    "total-kind",
    kinds.map((k) => [k, k]),
    "total",
  );
  const of = (list) => list.filter((t) => t.name === state.total && (t.side === state.side || t.side === ""));
  const grouped = new Set(data.groups.flatMap((g) => g.members));
  const traces = [];
  for (const [n, r] of data.runs.entries()) {
    for (const t of of(r.totals)) {
      const stroke = grouped.has(n) ? { color: look().faint, width: 1 } : { color: colour(n), width: 2, dash: dash(n) };
      traces.push({
        ...line(t.steps, column(t, "values", 1, 0), r.name, ".4g"),
        line: stroke,
        showlegend: !grouped.has(n) && data.runs.length > 1,
      });
    }
  }
  for (const [n, g] of data.groups.entries()) {
    for (const t of of(g.totals)) {
      const [mean, sem] = [column(t, "mean", 1, 0), column(t, "sem", 1, 0)];
      const band = [...mean.map((m, i) => m + sem[i]), ...mean.map((m, i) => m - sem[i]).reverse()];
      traces.push({
        x: [...t.steps, ...[...t.steps].reverse()],
        y: band,
        fill: "toself",
        fillcolor: `${colour(n)}33`,
        line: { width: 0 },
        mode: "lines",
        showlegend: false,
        hoverinfo: "skip",
      });
      traces.push({
        ...line(t.steps, mean, g.name, ".4g"),
        title: `${g.name}: mean of ${g.members.length} seeds`,
        showlegend: true,
        line: { color: colour(n), width: 3 },
        customdata: sem,
        hovertemplate: "%{meta}<br>%{x:,}: %{y:.4g} ± %{customdata:.2g}<extra></extra>",
      });
    }
  }
  if (!traces.length) return absent("totals", "No run has this number.");
  draw("totals", traces, {
    xaxis: timeAxis(),
    yaxis: {
      title: { text: label(state.total) },
      ...(state.total.startsWith("spread") ? log : { rangemode: "tozero" }),
    },
    shapes: now(),
  });
  const mine = of(run().totals)[0];
  const t = mine ? nearest(mine.steps, state.step ?? mine.steps.at(-1)) : 0;
  const figure = {
    "mean |cos|": "health",
    "effective rank": "conflicts",
    "negative pairs": "conflicts",
    "spread of gradient norms": "norms",
  }[state.total];
  describe(
    "totals",
    mine
      ? `${run().name}, ${state.total} at ${big(mine.steps[t])} ${run().step}: ${short(values(mine, "values")[t])}.`
      : `${run().name} has no ${state.total}.`,
    figure ? command(figure, figure === "health" ? "" : sideFlag()) : "",
    () => [
      ["run", "side", data.stepColumn, state.total],
      ...data.runs.flatMap((r) =>
        of(r.totals).flatMap((x) => x.steps.map((s, i) => [r.name, x.side, s, number(values(x, "values")[i])])),
      ),
    ],
  );
}
