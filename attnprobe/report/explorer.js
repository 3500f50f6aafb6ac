// linked views of heads: which head each of two panels shows, and its numbers
"use strict";
const explorer = payload.explorer && (() => {
  const QUANTITIES = {
    fraction: { label: "distance, % of uniform", metric: "distance", share: true },
    distance: { label: "distance", metric: "distance" },
    entropy: { label: "entropy", metric: "entropy" },
    head_kl_mean: { label: "divergence from other heads", metric: "head_kl_mean" },
  };
  const COLOURS = { 1: "½× to 2×", 3: "⅛× to 8×", 6: "1/64× to 64×", own: "to fit each panel" };
  const METRICS = [
    ["distance", "Distance"],
    ["entropy", "Entropy"],
    ["head_kl_mean", "Divergence", "from the other heads"],
  ];
  const root = document.querySelector("[data-explorer]");
  const { models } = payload.explorer;
  const state = { panels: [], image: 0, point: [0.5, 0.5], quantity: "", colours: "3", overlay: true };
  const boxes = [...root.querySelectorAll("[data-panel]")];
  const parts = []; // what is drawn for a panel, called with its number
  const find = (box, name) => box.querySelector(`[data-${name}]`);
  const choice = (box, name) => box.querySelector(`[data-choice=${name}]`);
  const counted = (count) => Array.from({ length: count }, (_, value) => value);
  // three digits, zeros kept, and no powers of ten
  const short = (value) => Math.abs(value) >= 1000 ? String(Math.round(value)) : Number(value).toPrecision(3);
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const layerOf = (n) => models[state.panels[n].model].layers[state.panels[n].layer];
  const spot = ({ layer, head }) => `layer ${layer + 1}, head ${head + 1}`;
  const titled = (n) => {
    const { name } = models[state.panels[n].model];
    return `${models.length > 1 ? `${name}, ` : ""}${spot(state.panels[n])}`;
  };

  // number of a head in the chosen quantity, or null where it was not measured
  function valueOf(layer, head, key = state.quantity) {
    const { metric, share } = QUANTITIES[key];
    const value = layer.values[metric]?.[head]?.[0] ?? null;
    if (!share || value === null) return value;
    return layer.uniform[metric] ? (100 * value) / layer.uniform[metric] : null;
  }
  const unitOf = (model, key = state.quantity) =>
    QUANTITIES[key].share ? "% of uniform" : model.units[QUANTITIES[key].metric];

  // the head of a layer with the least (sign 1) or the largest value (sign -1)
  function extreme(model, layer, sign) {
    const known = models[model].layers[layer];
    const rank = (head) => sign * (valueOf(known, head) ?? sign * Infinity);
    return counted(known.heads).reduce((best, head) => (rank(head) < rank(best) ? head : best), 0);
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
    select.value = String(chosen);
  }

  // show another head in panel n; what a model does not have is brought into its range
  function choose(n, change) {
    const next = { ...state.panels[n], ...change };
    next.layer = Math.min(next.layer, models[next.model].layers.length - 1);
    next.head = Math.min(next.head, models[next.model].layers[next.layer].heads - 1);
    state.panels[n] = next;
    root.dispatchEvent(new Event("chosen"));
    refresh();
  }

  function selects(n) {
    const numbered = (count) => counted(count).map((value) => [value, value + 1]);
    const { model, layer, head } = state.panels[n];
    fill(choice(boxes[n], "model"), models.map(({ name }, at) => [at, name]), model);
    fill(choice(boxes[n], "layer"), numbered(models[model].layers.length), layer);
    fill(choice(boxes[n], "head"), numbered(layerOf(n).heads), head);
  }

  // the chosen head's numbers as label, value and remarks
  function numbers(n) {
    const layer = layerOf(n);
    return METRICS.flatMap(([metric, label, about]) => {
      const found = layer.values[metric]?.[state.panels[n].head];
      if (!found) return [];
      const [value, low, high] = found;
      const even = layer.uniform[metric];
      const unit = models[state.panels[n].model].units[metric];
      return [{
        label,
        value: `${short(value)} ${unit}`.trim(),
        notes: [
          ...(low === null ? [] : [`95 %: ${short(low)} – ${short(high)}`]),
          ...(about ? [about] : []),
          ...(even ? [`${Math.round((100 * value) / even)} % of uniform`] : []),
        ],
      }];
    });
  }

  function list(n) {
    find(boxes[n], "numbers").replaceChildren(...numbers(n).map(({ label, value, notes }) => {
      const item = element("div");
      const amount = element("dd", value);
      amount.append(...notes.map((note) => element("small", note)));
      item.append(element("dt", label), amount);
      return item;
    }));
  }

  const refresh = () => boxes.forEach((_, n) => {
    selects(n);
    list(n);
    parts.forEach((part) => part(n));
  });

  function begin() {
    const every = models.flatMap(({ layers }) => layers);
    const known = Object.keys(QUANTITIES).filter((key) =>
      every.some((layer) => counted(layer.heads).some((head) => valueOf(layer, head, key) !== null)),
    );
    [state.quantity] = known;
    const second = Math.min(1, models.length - 1);
    const last = (model) => models[model].layers.length - 1;
    state.panels = [
      { model: 0, layer: last(0), head: extreme(0, last(0), 1) },
      { model: second, layer: last(second), head: extreme(second, last(second), second ? 1 : -1) },
    ];
    fill(choice(root, "quantity"), known.map((key) => {
      const unit = QUANTITIES[key].share ? "" : unitOf(models[0], key);
      return [key, `${QUANTITIES[key].label}${unit && ` (${unit})`}`];
    }), state.quantity);
    fill(choice(root, "colours"), Object.entries(COLOURS), state.colours);
    choice(root, "colours").closest("label").hidden = !every.some((layer) => layer.queries);
    find(root, "overlay").closest("label").hidden = !payload.explorer.images.length;
    root.hidden = false;
  }

  function listen() {
    boxes.forEach((box, n) => {
      box.toggleAttribute("data-lone", models.length === 1);
      for (const name of ["model", "layer", "head"]) {
        const select = choice(box, name);
        select.addEventListener("change", () => choose(n, { [name]: Number(select.value) }));
      }
    });
    for (const name of ["quantity", "colours"]) {
      choice(root, name).addEventListener("change", (event) => {
        state[name] = event.target.value;
        refresh();
      });
    }
    find(root, "overlay").addEventListener("change", (event) => {
      state.overlay = event.target.checked;
      refresh();
    });
  }

  // a click on the dot of a head shows it in panel A, with shift in panel B
  function follow(place, held) {
    place.addEventListener("painted", () => place.on("plotly_click", ({ points, event }) => {
      const point = points.find(({ customdata }) => Array.isArray(customdata));
      if (!point) return;
      const dotted = place.data.filter((trace) => trace.customdata);
      const [layer, head] = point.customdata;
      const n = event.shiftKey ? 1 : 0;
      choose(n, { model: held[dotted.indexOf(place.data[point.curveNumber])], layer, head });
      tell(place, n);
    }), { once: true });
  }

  function tell(place, n) {
    const words = place.closest("figure").querySelector("figcaption > p");
    const line = words.querySelector(".sent") ?? words.appendChild(element("span", "", "sent"));
    const link = element("a", "Explore the heads");
    link.href = "#explore";
    line.setAttribute("role", "status");
    line.replaceChildren(`Panel ${"AB"[n]} now shows ${titled(n)}: `, link);
  }

  begin();
  listen();
  for (const [name, held] of Object.entries(payload.explorer.figures)) {
    const place = document.querySelector(`[data-figure=${name}]`);
    if (place) follow(place, held);
  }
  return {
    root, boxes, models, state, parts, find, element, counted, short,
    layerOf, spot, titled, valueOf, unitOf, numbers, choose, refresh,
  };
})();
