// A list of choices.

import { el } from "./data.js";
import { state } from "./state.js";

export const fill = (id, options, key) => {
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
