// The view of one pair of tasks over time and over the layers.

import { COSINE_COLUMNS, column, data, el, nearest, number, pairIndex, range, tasks, values } from "./data.js";
import { absent, command, describe, draw, sideFlag, word } from "./frame.js";
import { line, now, timeAxis } from "./lines.js";
import { colour, dash, isDark, label, printing } from "./look.js";
import { cubeOf, run, state } from "./state.js";

export function pair() {
  if (!state.pair) return absent("pair", "The runs share one task, so there is no pair.");
  const [a, b] = state.pair;
  const p = pairIndex(a, b);
  const traces = data.runs.flatMap((r, n) => {
    const cube = cubeOf(r);
    if (!cube) return [];
    const stroke = { color: colour(n), width: n === state.run ? 2.5 : 1.2, dash: dash(n) };
    return [
      {
        ...line(cube.steps, column(cube, "cosines", cube.pairs, p), r.name, ".4f"),
        line: stroke,
        showlegend: data.runs.length > 1,
      },
    ];
  });
  const mine = cubeOf(run());
  const ranges = (mine?.steps ?? [])
    .map((s, t) => [s, ...range(mine, t * mine.pairs + p)])
    .filter(([, low]) => low !== null);
  if (ranges.length > 1) {
    traces.unshift({
      x: [...ranges.map(([s]) => s), ...ranges.map(([s]) => s).reverse()],
      y: [...ranges.map(([, low]) => low), ...ranges.map(([, , high]) => high).reverse()],
      fill: "toself",
      fillcolor: `${colour(state.run)}22`,
      line: { width: 0 },
      mode: "lines",
      showlegend: false,
      hoverinfo: "skip",
    });
  }
  const layers = run().cubes.filter((c) => c.side === state.side && c.layer);
  const wide = el("pair").clientWidth > 700 && !printing.matches;
  const bars = layers.map((c) => number(values(c, "cosines")[nearest(c.steps, state.step) * c.pairs + p]));
  const layout = {
    xaxis: timeAxis(),
    yaxis: { title: { text: "cosine" }, range: [-1, 1] },
    shapes: now().map((s) => ({ ...s, yref: "y domain" })),
    height: 380,
  };
  if (layers.length) {
    layout.xaxis = { ...layout.xaxis, domain: wide ? [0, 0.5] : [0, 1] };
    layout.yaxis = { ...layout.yaxis, domain: wide ? [0, 1] : [0.62, 1] };
    layout.xaxis2 = {
      domain: wide ? [0.68, 1] : [0, 1],
      range: [-1, 1],
      title: { text: "cosine in each layer" },
      anchor: "y2",
      fixedrange: true,
    };
    layout.yaxis2 = {
      domain: wide ? [0, 1] : [0, 0.42],
      autorange: "reversed",
      anchor: "x2",
      fixedrange: true,
      tickfont: { size: 10 },
    };
    layout.height = wide ? Math.max(380, 22 * layers.length) : 300 + 24 * layers.length;
    traces.push({
      type: "bar",
      orientation: "h",
      x: bars,
      y: layers.map((c) => label(c.layer)),
      xaxis: "x2",
      yaxis: "y2",
      showlegend: false,
      name: "layers",
      marker: {
        color: bars.map((v) => (v < 0 ? (isDark() ? "#4393c3" : "#2166ac") : isDark() ? "#f4a582" : "#b2182b")),
      },
      hovertemplate: "%{y}: %{x:.4f}<extra></extra>",
    });
  }
  draw("pair", traces, layout);
  const cube = cubeOf(run());
  const v = cube ? values(cube, "cosines")[nearest(cube.steps, state.step) * cube.pairs + p] : NaN;
  const least = layers
    .map((c, n) => [bars[n], c.layer])
    .filter(([x]) => x !== null)
    .sort((x, y) => x[0] - y[0])[0];
  describe(
    "pair",
    `${tasks[a]} against ${tasks[b]}: cosine ${Number.isFinite(v) ? v.toFixed(4) : "unknown"} at this time.${least ? ` Lowest in the layer ${least[1]}: ${least[0].toFixed(2)}.` : " This run has no layers."}`,
    command("conflicts", `${sideFlag()} --tasks ${word(`${tasks[a]},${tasks[b]}`)}`),
    () => [
      COSINE_COLUMNS,
      ...data.runs.flatMap((r) =>
        r.cubes
          .filter((c) => c.side === state.side)
          .flatMap((c) =>
            c.steps.map((s, t) => [
              r.name,
              c.side,
              c.condition,
              c.layer || "",
              s,
              tasks[a],
              tasks[b],
              number(values(c, "cosines")[t * c.pairs + p]),
              ...range(c, t * c.pairs + p),
            ]),
          ),
      ),
    ],
  );
}
