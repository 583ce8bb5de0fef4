// The data of the page, as Python embedded it: every number in it was computed there.

export const el = (id) => document.getElementById(id);
export const data = JSON.parse(el("data").textContent);

const unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const packed = new Map();
export const values = (holder, key) => {
  if (!packed.has(holder[key])) packed.set(holder[key], new Float32Array(unpack(holder[key]).buffer));
  return packed.get(holder[key]);
};
// The range of a median over the minibatches of its step; not kept for layers.
export const range = (cube, at) => {
  if (!cube.low) return [null, null];
  return ["low", "high"].map((key) => {
    if (!packed.has(cube[key])) packed.set(cube[key], new Int16Array(unpack(cube[key]).buffer));
    const whole = packed.get(cube[key])[at];
    return whole === -32768 ? null : Number((whole / 32767).toFixed(4));
  });
};
export const tasks = data.tasks; // those that all runs share
export const K = tasks.length;
export const pairIndex = (i, j) => (i < j ? i * K - (i * (i + 1)) / 2 + j - i - 1 : pairIndex(j, i));
export const column = (holder, key, width, k) => {
  const all = values(holder, key);
  return holder.steps.map((_, t) => all[t * width + k]);
};
export const number = (x) => (Number.isFinite(x) ? Number(x.toPrecision(7)) : null);
export const nearest = (steps, step) => {
  let best = 0;
  steps.forEach((s, t) => {
    if (Math.abs(s - step) < Math.abs(steps[best] - step)) best = t;
  });
  return best;
};
export const unique = (list) => [...new Set(list)];
export const big = (x) => x.toLocaleString("en-US");
export const short = (x) => (Number.isFinite(x) ? Number(x.toPrecision(4)).toString() : "none");

// Columns of the tables of cosines.
export const COSINE_COLUMNS = [
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
