// the patch that looks: chosen on an image, moved by arrow keys, and read off under the pointer
"use strict";
if (explorer) {
  const { root, boxes, models, shown, state, element, find } = explorer;
  const data = payload.explorer;

  // two digits: codes carry no more
  const digits = (value) => (value >= 10 ? String(Math.round(value)) : value.toPrecision(2));
  function times(value, steps) {
    const [least, most] = attention.ends(steps);
    if (Number.isNaN(value)) return "not a key of this patch";
    if (value === 0) return "no attention";
    if (value <= least * 1.001) return "1/64× uniform or less";
    return `${digits(value)}× uniform${value >= most * 0.999 ? " or more" : ""}`;
  }
  const where = ({ grid }, token) =>
    `row ${Math.floor(token / grid[1]) + 1}, column ${(token % grid[1]) + 1}`;

  // the patch that looks and the key it looks at most
  function describe(n) {
    const { layer, found } = shown[n];
    if (!found?.values) return void (find(boxes[n], "status").textContent = "");
    const query = layer.queries[found.at];
    const best = found.values.reduce((top, value, at, all) => (value > (all[top] || 0) ? at : top), 0);
    const far = Math.round(attention.gap(layer, query, best));
    find(boxes[n], "status").textContent =
      `Patch in ${where(layer, query)} of ${layer.grid.join(" × ")}. It looks most at ` +
      `${best === query ? "itself" : `${where(layer, best)}, ${far} px away`}: ` +
      `${times(found.values[best], data.steps)}.`;
  }

  const READ = {
    picture({ layer, found }, token) {
      const far = Math.round(attention.gap(layer, layer.queries[found.at], token));
      return `Key in ${where(layer, token)}: ${times(found.values[token], data.steps)}, ${far} px away.`;
    },
    place({ layer, found }, token) {
      const value = times(found.place[token], data.meanSteps);
      return `Patch in ${where(layer, token)} receives ${value}, mean over queries and images.`;
    },
    offset({ layer, found }, cell) {
      const cols = layer.offsets[1];
      const steps = [Math.floor(cell / cols), cell % cols].map((at, side) =>
        Math.round((at - (layer.offsets[side] - 1) / 2) * layer.pool * layer.patch[side]));
      const [down, right] = steps;
      const way = [
        down && `${Math.abs(down)} px ${down < 0 ? "up" : "down"}`,
        right && `${Math.abs(right)} px ${right < 0 ? "left" : "right"}`,
      ].filter(Boolean);
      const value = times(found.offset[cell], data.meanSteps);
      return `${way.join(", ") || "The patch itself"}: ${value}, mean over queries and images.`;
    },
  };

  function cellUnder(canvas, event, [rows, cols]) {
    const box = canvas.getBoundingClientRect();
    const y = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const x = Math.floor(((event.clientX - box.left) / box.width) * cols);
    return Math.min(Math.max(y, 0), rows - 1) * cols + Math.min(Math.max(x, 0), cols - 1);
  }

  // both panels go to the patch that this layer's stored queries have nearest to a point
  function look(n, point) {
    const { layer } = shown[n];
    const token = layer.queries[attention.nearest(layer, point)];
    const [y, x] = attention.centre(layer, token);
    state.point = [y / (layer.grid[0] * layer.patch[0]), x / (layer.grid[1] * layer.patch[1])];
    explorer.refresh();
  }

  // the next stored query in a direction, or the same one at the edge
  function step(n, [down, right]) {
    const { layer, found } = shown[n];
    const cols = layer.grid[1];
    const from = layer.queries[found.at];
    const split = (token) => [Math.floor(token / cols), token % cols];
    const [y, x] = split(from);
    const ahead = layer.queries.filter((token) => {
      const [b, a] = split(token);
      return down ? a === x && (b - y) * down > 0 : b === y && (a - x) * right > 0;
    });
    const next = ahead.sort((a, b) => Math.abs(a - from) - Math.abs(b - from))[0] ?? from;
    const [b, a] = split(next);
    look(n, [(b + 0.5) / layer.grid[0], (a + 0.5) / cols]);
  }

  boxes.forEach((box, n) => {
    for (const [name, read] of Object.entries(READ)) {
      const canvas = find(box, name);
      canvas.addEventListener("pointermove", (event) => {
        if (!shown[n].found) return;
        const sides = name === "offset" ? shown[n].layer.offsets : shown[n].layer.grid;
        find(box, "status").textContent = read(shown[n], cellUnder(canvas, event, sides));
      });
      canvas.addEventListener("pointerleave", () => describe(n));
    }
    const picture = find(box, "picture");
    picture.addEventListener("click", (event) => {
      if (!shown[n].found) return;
      const area = picture.getBoundingClientRect();
      look(n, [(event.clientY - area.top) / area.height, (event.clientX - area.left) / area.width]);
    });
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    picture.addEventListener("keydown", (event) => {
      if (!moves[event.key] || !shown[n].found?.values) return;
      event.preventDefault();
      step(n, moves[event.key]);
    });
  });

  // images that some model has maps of; their files stand in the page once
  function thumbnails() {
    const place = find(root, "thumbs");
    place.hidden = !data.images.length;
    data.images.forEach((id, at) => {
      const held = models.map(({ images }) => images[at]).find(Boolean);
      const label = element("label");
      const input = label.appendChild(element("input"));
      Object.assign(input, { type: "radio", name: "explored", value: at, checked: at === 0 });
      input.autocomplete = "off";
      const image = label.appendChild(element("img"));
      image.src = `data:image/jpeg;base64,${data.files[held[1]]}`;
      image.alt = label.title = id;
      input.addEventListener("change", () => {
        state.image = at;
        explorer.refresh();
      });
      place.append(label);
    });
  }

  thumbnails();
  Object.assign(explorer, { describe });
  explorer.refresh();
}
