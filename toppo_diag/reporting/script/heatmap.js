// The view of all cosines at one time.

import { big, COSINE_COLUMNS, data, el, K, nearest, number, pairIndex, range, short, tasks, values } from "./data.js";
import { absent, command, describe, draw, sideFlag, word } from "./frame.js";
import { cut, diverging, label, look, printing } from "./look.js";
import { cubeOf, run, set, state, toggle } from "./state.js";

export function heatmap() {
  const cube = cubeOf(run());
  if (!cube || K < 2)
    return absent(
      "heatmap",
      K < 2 ? "The runs share one task, so there is no pair." : "This run recorded no Gram of this side.",
    );
  const here = { run: run(), cube, t: nearest(cube.steps, state.step) };
  const other = state.other >= 0 ? cubeOf(data.runs[state.other]) : null;
  const there = other && { run: data.runs[state.other], cube: other, t: nearest(other.steps, state.step) };
  const order = ordered(here);
  const panels = [[cosineOf(here), here.run.name]];
  if (there) panels.push([cosineOf(there), there.run.name], [difference(here, there), "difference"]);
  const { traces, layout } = pictures(panels, order);
  if (!there) addLengths(here, order, traces, layout);
  layout.shapes = frames(order);
  draw("heatmap", traces, layout, (point) => {
    const [a, b] = point.customdata;
    if (a === b) toggle(a);
    else set({ pair: [a, b] });
  });
  const also = there ? ` ${there.run.name} is shown at ${big(there.cube.steps[there.t])} ${run().step}.` : "";
  describe(
    "heatmap",
    wordsOf(here, order) + also,
    command("heatmaps", `${sideFlag()}${state.layer ? ` --layer ${word(state.layer)}` : ""} --steps ${stepOf(here)}`),
    () => [[...COSINE_COLUMNS, "norm_of_task"], ...[here, ...(there ? [there] : [])].flatMap(rowsOf)],
  );
}

// A `shown` is what one panel shows: a run, its cube, and the index of the time.
const stepOf = (shown) => shown.cube.steps[shown.t];
const lengthOf = (shown, k) => values(shown.cube, "norms")[shown.t * K + k];
const cosineOf = (shown) => (a, b) =>
  a === b ? null : number(values(shown.cube, "cosines")[shown.t * shown.cube.pairs + pairIndex(a, b)]);
const difference = (here, there) => (a, b) => {
  const [x, y] = [cosineOf(here)(a, b), cosineOf(there)(a, b)];
  return x === null || y === null ? null : x - y;
};

const pictures = (panels, order) => {
  const names = order.map((k) => label(cut(tasks[k])));
  const size = K <= 12 ? 34 : K <= 25 ? 20 : 12.5;
  const stacked = el("heatmap").clientWidth < 900 || printing.matches;
  const several = panels.length > 1;
  const rows = stacked ? panels.length : 1;
  const columns = stacked ? 1 : panels.length;
  const layout = {
    height: rows * (size * K + 130) + 20,
    least: Math.max(320, columns * (K * (K > 25 ? 11 : 20) + 60) + 130),
    annotations: [],
    margin: { l: 20, r: 55, t: 30, b: 20 },
  };
  const traces = panels.map(([z, title], n) => {
    const axis = n ? String(n + 1) : "";
    const [row, col] = stacked ? [n, 0] : [0, n];
    const wide = (several ? 0.97 : 0.93) / columns;
    const [x0, x1] = [col / columns, col / columns + wide - (columns > 1 ? 0.02 : 0)];
    const [y1, y0] = [1 - row / rows, 1 - (row + 1) / rows + (rows > 1 ? (0.12 / rows) * 2 : 0)];
    const both = {
      tickvals: [...order.keys()],
      tickfont: font(),
      fixedrange: true,
      showgrid: false,
      zeroline: false,
    };
    layout[`xaxis${axis}`] = { ...both, domain: [x0, x1], ticktext: names, tickangle: -90, anchor: `y${axis}` };
    layout[`yaxis${axis}`] = {
      ...both,
      domain: [y0, y1],
      ticktext: col === 0 ? names : order.map(() => ""),
      autorange: "reversed",
      anchor: `x${axis}`,
    };
    layout.annotations.push({
      text: label(cut(title, 40)),
      x: x0,
      y: y1,
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
    });
    return {
      type: "heatmap",
      z: order.map((a) => order.map((b) => z(a, b))),
      xaxis: `x${axis}`,
      yaxis: `y${axis}`,
      zmin: -1,
      zmax: 1,
      colorscale: diverging(),
      showscale: n === 0,
      colorbar: {
        thickness: 10,
        len: Math.min(1, 260 / layout.height),
        y: 1,
        yanchor: "top",
        title: { text: "cos" },
        x: 1.0,
      },
      xgap: gap(),
      ygap: gap(),
      customdata: order.map((a) => order.map((b) => [a, b])),
      text: order.map((a) => order.map((b) => `${label(tasks[a])}<br>${label(tasks[b])}`)),
      ...(K <= 12 && columns === 1 && el("heatmap").clientWidth > 500
        ? { texttemplate: "%{z:.2f}", textfont: { size: 10 } }
        : {}),
      hovertemplate: "%{text}<br>%{z:.4f}<extra></extra>",
      hoverongaps: false,
    };
  });
  return { traces, layout };
};
const font = () => ({ size: K <= 25 ? 11 : 9 });
const gap = () => (K > 25 ? 0 : 1);

// A column beside the cosines: the lengths of the gradients, coloured by their logarithm.
const addLengths = (shown, order, traces, layout) => {
  const lengths = order.map((k) => lengthOf(shown, k));
  layout.xaxis9 = {
    domain: [0.945, 0.975],
    tickvals: [0],
    ticktext: ["‖g‖"],
    fixedrange: true,
    anchor: "y",
    side: "bottom",
    tickfont: font(),
  };
  traces.push({
    type: "heatmap",
    x: [0],
    z: lengths.map((v) => [v > 0 ? Math.log10(v) : null]),
    xaxis: "x9",
    yaxis: "y",
    colorscale: "Viridis",
    showscale: false,
    hovertext: lengths.map((v, n) => [`${label(tasks[order[n]])}<br>‖g‖ = ${short(v)}`]),
    ...(K <= 12
      ? {
          text: lengths.map((v) => [v >= 1e3 || v < 0.01 ? v.toExponential(0).replace("+", "") : v.toPrecision(2)]),
          texttemplate: "%{text}",
          textfont: { size: 9 },
        }
      : {}),
    hovertemplate: "%{hovertext}<extra></extra>",
    customdata: order.map((a) => [[a, a]]),
    ygap: gap(),
    hoverongaps: false,
  });
};

// Marked tasks and the chosen pair stand in a frame.
const frames = (order) => {
  const rect = (x0, x1, y0, y1, width) => ({ type: "rect", x0, x1, y0, y1, line: { color: look().ink, width } });
  const [a, b] = state.pair.map((k) => order.indexOf(k));
  return [
    ...[...order.entries()]
      .filter(([, k]) => state.marked.includes(k))
      .map(([n]) => rect(-0.5, K - 0.5, n - 0.5, n + 0.5, 1.5)),
    rect(b - 0.5, b + 0.5, a - 0.5, a + 0.5, 2.5),
  ];
};

const wordsOf = (shown, order) => {
  const cosine = cosineOf(shown);
  const known = order
    .flatMap((a, n) => order.slice(n + 1).map((b) => [cosine(a, b), a, b]))
    .filter(([v]) => v !== null)
    .sort((x, y) => x[0] - y[0]);
  if (!known.length) return "No pair of tasks has a gradient at this time.";
  const said = ([v, a, b]) => `${v.toFixed(2)} (${tasks[a]} and ${tasks[b]})`;
  const [a, b] = state.pair;
  const v = cosine(a, b);
  const where = `${shown.run.name}, ${state.side}${state.layer ? `, ${state.layer}` : ""}`;
  return (
    `${where} at ${big(stepOf(shown))} ${shown.run.step}: cosines from ${said(known[0])} to ${said(known.at(-1))}. ` +
    `${tasks[a]} and ${tasks[b]}: ${v === null ? "no gradient" : v.toFixed(4)}.`
  );
};

const rowsOf = (shown) => {
  const { run, cube, t } = shown;
  return tasks.flatMap((x, i) =>
    tasks.map((y, j) => [
      run.name,
      cube.side,
      cube.condition,
      cube.layer || "",
      stepOf(shown),
      x,
      y,
      ...(i === j ? [1, 1, 1] : [cosineOf(shown)(i, j), ...range(cube, t * cube.pairs + pairIndex(i, j))]),
      number(lengthOf(shown, i)),
    ]),
  );
};

// The tasks in the order that the reader chose.
const ordered = (shown) => {
  const every = [...tasks.keys()];
  if (state.order === "name") return every.sort((a, b) => tasks[a].localeCompare(tasks[b]));
  if (state.order === "norm") return every.sort((a, b) => lengthOf(shown, b) - lengthOf(shown, a));
  if (state.order !== "similarity") return every;
  // Each task stands beside the one that is most like the last, from the task with the most likeness on.
  const cosine = cosineOf(shown);
  const cos = (a, b) => cosine(a, b) || 0;
  const total = (a) => every.reduce((sum, b) => (a === b ? sum : sum + cos(a, b)), 0);
  const chain = [every.reduce((a, b) => (total(b) > total(a) ? b : a))];
  while (chain.length < K) {
    const left = every.filter((k) => !chain.includes(k));
    chain.push(left.reduce((a, b) => (cos(chain.at(-1), b) > cos(chain.at(-1), a) ? b : a)));
  }
  return chain;
};
