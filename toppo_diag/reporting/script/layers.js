// The view of the layers that bring conflict.

import { big, column, data, nearest, number, short } from "./data.js";
import { absent, command, describe, draw, sideFlag } from "./frame.js";
import { label } from "./look.js";
import { run, set, state } from "./state.js";

export function layers() {
  const map = run().layers.find((m) => m.side === state.side);
  if (!map)
    return absent("layers", "This run has no layers of this side. Record gradients (slabs) or the Grams of layers.");
  const L = map.names.length;
  const z = map.names.map((_, n) => column(map, "conflict", L, n).map(number));
  const every = Math.ceil(map.steps.length / 8);
  const shown = map.steps.filter((_, t) => t % every === 0);
  const ticks = {
    tickvals: shown.map(String),
    ticktext: shown.map((s) => (s >= 1e5 ? `${short(s / 1e6)}M` : big(s))),
  };
  draw(
    "layers",
    [
      {
        type: "heatmap",
        x: map.steps.map(String),
        y: map.names.map(label),
        z,
        zmin: 0,
        colorscale: "Viridis",
        colorbar: { thickness: 10, title: { text: "conflict" } },
        customdata: map.names.map((name) => map.steps.map((s) => [name, s])),
        hovertemplate: "%{y}<br>%{x}: %{z:.3f}<extra></extra>",
        xgap: 1,
        ygap: 1,
      },
    ],
    {
      height: 120 + 22 * L,
      xaxis: { type: "category", title: { text: run().step }, fixedrange: true, ...ticks },
      yaxis: { autorange: "reversed", fixedrange: true, tickfont: { size: 10 } },
    },
    (point) => set({ layer: point.customdata[0], step: point.customdata[1] }, true),
  );
  const t = nearest(map.steps, state.step ?? map.steps.at(-1));
  const worst = map.names.map((name, n) => [z[n][t], name]).sort((x, y) => y[0] - x[0])[0];
  describe(
    "layers",
    worst[0] > 0
      ? `At ${big(map.steps[t])} ${run().step}, ${worst[1]} brings the most conflict: ${worst[0].toPrecision(2)}.`
      : `At ${big(map.steps[t])} ${run().step}, no layer brings conflict beyond noise.`,
    command("conflicts", sideFlag()),
    () => [
      ["run", "side", data.stepColumn, "layer", "conflict"],
      ...map.steps.flatMap((s, i) => map.names.map((name, n) => [run().name, map.side, s, name, z[n][i]])),
    ],
  );
}
