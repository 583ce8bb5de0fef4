// The views of the report. The data come from the page's own JSON; every number in it was computed in Python.
// Text of a run reaches the page as text nodes, and Plotly as escaped labels. Nothing is evaluated or fetched.
(() => {
  const el = (id) => document.getElementById(id);
  const data = JSON.parse(el("data").textContent);
  if (!data.runs.some((run) => run.cubes.length || run.lines.length)) {
    return; // nothing is recorded yet: the findings say so
  }

  // ---- data --------------------------------------------------------------------------------------------------------
  const unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const packed = new Map();
  const values = (holder, key) => {
    if (!packed.has(holder[key])) packed.set(holder[key], new Float32Array(unpack(holder[key]).buffer));
    return packed.get(holder[key]);
  };
  // The range of a median over the minibatches of its step; not kept for layers.
  const range = (cube, at) => {
    if (!cube.low) return [null, null];
    return ["low", "high"].map((key) => {
      if (!packed.has(cube[key])) packed.set(cube[key], new Int16Array(unpack(cube[key]).buffer));
      const whole = packed.get(cube[key])[at];
      return whole === -32768 ? null : Number((whole / 32767).toFixed(4));
    });
  };
  const tasks = data.tasks; // those that all runs share
  const K = tasks.length;
  const pairIndex = (i, j) => (i < j ? i * K - (i * (i + 1)) / 2 + j - i - 1 : pairIndex(j, i));
  const column = (holder, key, width, k) => {
    const all = values(holder, key);
    return holder.steps.map((_, t) => all[t * width + k]);
  };
  const number = (x) => (Number.isFinite(x) ? Number(x.toPrecision(7)) : null);
  const nearest = (steps, step) => {
    let best = 0;
    steps.forEach((s, t) => {
      if (Math.abs(s - step) < Math.abs(steps[best] - step)) best = t;
    });
    return best;
  };
  const unique = (list) => [...new Set(list)];
  const big = (x) => x.toLocaleString("en-US");
  const short = (x) => (Number.isFinite(x) ? Number(x.toPrecision(4)).toString() : "none");

  // ---- state -------------------------------------------------------------------------------------------------------
  const first = data.runs.findIndex((run) => run.cubes.length);
  const state = {
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
  const remember = () => {
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
  const run = () => data.runs[state.run];
  const cubeOf = (of, layer = state.layer, condition = state.condition) =>
    of.cubes.find((c) => c.side === state.side && c.condition === condition && (c.layer || "") === layer);
  const linesOf = (of, view) => of.lines.filter((l) => l.view === view && (l.side === state.side || l.side === ""));

  const COSINE_COLUMNS = [
    "run",
    "side",
    "condition",
    "layer",
    data.stepColumn,
    "task",
    "task_j",
    "median_cosine",
    "cosine_low",
    "cosine_high",
  ];

  // ---- look --------------------------------------------------------------------------------------------------------
  const MANY = 15; // with more tasks than this, a view names the extreme ones alone, as the figures do
  const palettes = {
    light: data.colours,
    dark: [
      "#77AADD",
      "#EE8866",
      "#EEDD88",
      "#FFAABB",
      "#99DDFF",
      "#44BB99",
      "#BBCC33",
      "#AAAA00",
      "#DDDDDD",
      "#CC99FF",
    ],
  };
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
  const printing = window.matchMedia("print");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => !printing.matches && (state.theme || (system.matches ? "dark" : "light")) === "dark";
  const colour = (k) => palettes[isDark() ? "dark" : "light"][k % 10];
  const look = () =>
    isDark()
      ? { ink: "#ececf0", grid: "#3b3e47", paper: "#17181c", faint: "#4a4d57", middle: "#2a2b31" }
      : { ink: "#1d1d1f", grid: "#e3e3e8", paper: "#ffffff", faint: "#cfcfd6", middle: "#f7f7f7" };
  const diverging = () => [
    [0, isDark() ? "#4393c3" : "#053061"],
    [0.25, isDark() ? "#2f6690" : "#4393c3"],
    [0.5, look().middle],
    [0.75, isDark() ? "#a8503f" : "#d6604d"],
    [1, isDark() ? "#f4a582" : "#67001f"],
  ];
  // Plotly reads a few tags in its labels; names of a run must not be read as such.
  const label = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const cut = (text, length = 24) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
  const layoutOf = (more) => {
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
  const config = { displayModeBar: false, responsive: true, showTips: false };

  // ---- each view: a picture, its words, its command and its table ---------------------------------------------------
  const tables = {}; // view -> () => rows, the first is the header
  const frame = (id) => {
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
  const describe = (id, words, command, rows) => {
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
  const absent = (id, why) => {
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
  const draw = (id, traces, layout, onClick) => {
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
  const word = (text) => (/^[\w.,:=@%+/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const command = (name, more = "") => `toppo-diag ${name} ${run().quoted}${more}`;
  const sideFlag = () => ` --side ${state.side}`;

  // ---- views over time ---------------------------------------------------------------------------------------------
  const timeAxis = () => ({
    title: { text: run().step },
    range: state.range ? [...state.range] : undefined,
    autorange: !state.range,
  });
  const now = () =>
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
  const dash = (n) => dashes[Math.floor(n / 10) % dashes.length];
  const line = (steps, y, name, digits) => ({
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
  const log = { type: "log", exponentformat: "power" };

  const views = {
    norms() {
      taskView(
        "norms",
        linesOf(run(), "norms")[0],
        log,
        command("norms", sideFlag()),
        "This run recorded no Gram of this side.",
      );
    },
    contributions() {
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
    },
    curves() {
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
    },
    totals() {
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
          const stroke = grouped.has(n)
            ? { color: look().faint, width: 1 }
            : { color: colour(n), width: 2, dash: dash(n) };
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
    },
    heatmap() {
      const cube = cubeOf(run());
      if (!cube || K < 2)
        return absent(
          "heatmap",
          K < 2 ? "The runs share one task, so there is no pair." : "This run recorded no Gram of this side.",
        );
      const compared = state.other >= 0 ? cubeOf(data.runs[state.other]) : null;
      const [t, u] = [nearest(cube.steps, state.step), compared ? nearest(compared.steps, state.step) : 0];
      const order = ordered(cube, t);
      const names = order.map((k) => label(cut(tasks[k])));
      const at = (c, when) => (a, b) =>
        a === b ? null : number(values(c, "cosines")[when * c.pairs + pairIndex(a, b)]);
      const here = at(cube, t);
      const panels = [[here, run().name]];
      if (compared) {
        const there = at(compared, u);
        const minus = (a, b) => (here(a, b) === null || there(a, b) === null ? null : here(a, b) - there(a, b));
        panels.push([there, data.runs[state.other].name], [minus, "difference"]);
      }
      const size = K <= 12 ? 34 : K <= 25 ? 20 : 12.5;
      const font = { size: K <= 25 ? 11 : 9 };
      const stacked = el("heatmap").clientWidth < 900 || printing.matches;
      const rows = compared && stacked ? panels.length : 1;
      const columns = compared && !stacked ? panels.length : 1;
      const layout = {
        height: rows * (size * K + 130) + 20,
        least: Math.max(320, columns * (K * (K > 25 ? 11 : 20) + 60) + 130),
        annotations: [],
        shapes: [],
        margin: { l: 20, r: 55, t: 30, b: 20 },
      };
      const traces = panels.map(([z, title], n) => {
        const axis = n ? String(n + 1) : "";
        const [row, col] = stacked ? [n, 0] : [0, n];
        const wide = (compared ? 0.97 : 0.93) / columns;
        const [x0, x1] = [col / columns, col / columns + wide - (columns > 1 ? 0.02 : 0)];
        const [y1, y0] = [1 - row / rows, 1 - (row + 1) / rows + (rows > 1 ? (0.12 / rows) * 2 : 0)];
        layout[`xaxis${axis}`] = {
          domain: [x0, x1],
          tickvals: [...order.keys()],
          ticktext: names,
          tickangle: -90,
          tickfont: font,
          fixedrange: true,
          showgrid: false,
          anchor: `y${axis}`,
          zeroline: false,
        };
        layout[`yaxis${axis}`] = {
          domain: [y0, y1],
          tickvals: [...order.keys()],
          ticktext: col === 0 ? names : order.map(() => ""),
          tickfont: font,
          autorange: "reversed",
          fixedrange: true,
          showgrid: false,
          anchor: `x${axis}`,
          zeroline: false,
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
          xgap: K > 25 ? 0 : 1,
          ygap: K > 25 ? 0 : 1,
          customdata: order.map((a) => order.map((b) => [a, b])),
          text: order.map((a) => order.map((b) => `${label(tasks[a])}<br>${label(tasks[b])}`)),
          ...(K <= 12 && columns === 1 && el("heatmap").clientWidth > 500
            ? { texttemplate: "%{z:.2f}", textfont: { size: 10 } }
            : {}),
          hovertemplate: "%{text}<br>%{z:.4f}<extra></extra>",
          hoverongaps: false,
        };
      });
      if (!compared) {
        const lengths = order.map((k) => values(cube, "norms")[t * K + k]);
        layout.xaxis9 = {
          domain: [0.945, 0.975],
          tickvals: [0],
          ticktext: ["‖g‖"],
          fixedrange: true,
          anchor: "y",
          side: "bottom",
          tickfont: font,
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
                text: lengths.map((v) => [
                  v >= 1e3 || v < 0.01 ? v.toExponential(0).replace("+", "") : v.toPrecision(2),
                ]),
                texttemplate: "%{text}",
                textfont: { size: 9 },
              }
            : {}),
          hovertemplate: "%{hovertext}<extra></extra>",
          customdata: order.map((a) => [[a, a]]),
          ygap: K > 25 ? 0 : 1,
          hoverongaps: false,
        });
      }
      // Marked tasks and the chosen pair stand in a frame.
      order.forEach((k, n) => {
        if (state.marked.includes(k))
          layout.shapes.push({
            type: "rect",
            x0: -0.5,
            x1: K - 0.5,
            y0: n - 0.5,
            y1: n + 0.5,
            line: { color: look().ink, width: 1.5 },
          });
      });
      {
        const [a, b] = state.pair.map((k) => order.indexOf(k));
        layout.shapes.push({
          type: "rect",
          x0: b - 0.5,
          x1: b + 0.5,
          y0: a - 0.5,
          y1: a + 0.5,
          line: { color: look().ink, width: 2.5 },
        });
      }
      draw("heatmap", traces, layout, (point) => {
        const [a, b] = point.customdata;
        if (a === b) toggle(a);
        else set({ pair: [a, b] });
      });
      const [a, b] = state.pair;
      const all = order
        .flatMap((x, n) => order.slice(n + 1).map((y) => [here(x, y), x, y]))
        .filter(([v]) => v !== null)
        .sort((x, y) => x[0] - y[0]);
      const words = all.length
        ? `${run().name}, ${state.side}${state.layer ? `, ${state.layer}` : ""} at ${big(cube.steps[t])} ${run().step}: cosines from ${all[0][0].toFixed(2)} (${tasks[all[0][1]]} and ${tasks[all[0][2]]}) to ${all.at(-1)[0].toFixed(2)} (${tasks[all.at(-1)[1]]} and ${tasks[all.at(-1)[2]]}). ${tasks[a]} and ${tasks[b]}: ${here(a, b) === null ? "no gradient" : here(a, b).toFixed(4)}.`
        : "No pair of tasks has a gradient at this time.";
      const extra = compared
        ? ` ${data.runs[state.other].name} is shown at ${big(compared.steps[u])} ${run().step}.`
        : "";
      describe(
        "heatmap",
        words + extra,
        command(
          "heatmaps",
          `${sideFlag()}${state.layer ? ` --layer ${word(state.layer)}` : ""} --steps ${cube.steps[t]}`,
        ),
        () => [
          [...COSINE_COLUMNS, "norm_of_task"],
          ...[[cube, run(), t], ...(compared ? [[compared, data.runs[state.other], u]] : [])].flatMap(([c, r, when]) =>
            tasks.flatMap((x, i) =>
              tasks.map((y, j) => [
                r.name,
                c.side,
                c.condition,
                c.layer || "",
                c.steps[when],
                x,
                y,
                i === j ? 1 : at(c, when)(i, j),
                ...(i === j ? [1, 1] : range(c, when * c.pairs + pairIndex(i, j))),
                number(values(c, "norms")[when * K + i]),
              ]),
            ),
          ),
        ],
      );
    },
    pair() {
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
    },
    layers() {
      const map = run().layers.find((m) => m.side === state.side);
      if (!map)
        return absent(
          "layers",
          "This run has no layers of this side. Record gradients (slabs) or the Grams of layers.",
        );
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
    },
  };
  const ordered = (cube, t) => {
    const every = [...tasks.keys()];
    const norms = values(cube, "norms");
    if (state.order === "name") return every.sort((a, b) => tasks[a].localeCompare(tasks[b]));
    if (state.order === "norm") return every.sort((a, b) => norms[t * K + b] - norms[t * K + a]);
    if (state.order !== "similarity") return every;
    // Each task stands beside the one that is most like the last, from the task with the most likeness on.
    const cos = (a, b) => values(cube, "cosines")[t * cube.pairs + pairIndex(a, b)] || 0;
    const total = (a) => every.reduce((sum, b) => (a === b ? sum : sum + cos(a, b)), 0);
    const chain = [every.reduce((a, b) => (total(b) > total(a) ? b : a))];
    while (chain.length < K) {
      const left = every.filter((k) => !chain.includes(k));
      chain.push(left.reduce((a, b) => (cos(chain.at(-1), b) > cos(chain.at(-1), a) ? b : a)));
    }
    return chain;
  };

  // ---- controls ----------------------------------------------------------------------------------------------------
  const fill = (id, options, key) => {
    const select = el(id);
    const known = options.map(([value]) => value);
    if (!known.includes(state[key])) state[key] = known[0] ?? "";
    select.replaceChildren(
      ...options.map(([value, text]) => {
        const option = document.createElement("option");
        option.value = value;
        option.textContent = text;
        option.selected = value === state[key];
        return option;
      }),
    );
    select.closest("label").hidden = options.length < 2;
  };
  let times = [];
  const controls = () => {
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
    if (!sides.includes(state.side))
      state.side = sides.includes(data.defaultSide) ? data.defaultSide : (sides[0] ?? "");
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
    for (const part of document.querySelectorAll("[data-of-run]"))
      part.hidden = Number(part.dataset.ofRun) !== state.run;
  };
  const redraw = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    controls();
    for (const id of Object.keys(views)) stale.add(id);
    for (const id of [...stale]) if (inSight.has(id)) refresh(id);
    remember();
  };
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
  let waiting = false;
  const set = (change, goToHeatmap = false) => {
    Object.assign(state, change);
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        redraw();
        if (goToHeatmap) el("view-heatmap").scrollIntoView();
      });
    }
  };
  const toggle = (k) =>
    set({ marked: state.marked.includes(k) ? state.marked.filter((m) => m !== k) : [...state.marked, k] });
  const zoomed = (change) => {
    if (change["xaxis.range[0]"] !== undefined) set({ range: [change["xaxis.range[0]"], change["xaxis.range[1]"]] });
    else if (change["xaxis.autorange"]) set({ range: null });
  };

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

  // ---- a run that goes on ------------------------------------------------------------------------------------------
  if (data.follow) {
    el("following").textContent = `This page looks for news every ${data.follow} s while the report is being renewed.`;
    let touched = 0;
    for (const kind of ["pointerdown", "keydown"])
      window.addEventListener(kind, () => {
        touched = Date.now();
      });
    setInterval(() => {
      if (Date.now() - touched > 3000 && !document.hidden) location.reload();
    }, 1000 * data.follow);
  }

  el("views").hidden = false;
  for (const id of Object.keys(views)) {
    frame(id);
    sight.observe(el(id).closest("section"));
  }
  redraw();
  document.documentElement.dataset.ready = "true";
})();
