// attention maps: codes of a layer, the keys that a patch sees, and colours of times uniform
"use strict";
const attention = (() => {
  const UNIFORM = 8; // octaves that codes reach below uniform attention
  const MASS = 65535;
  const RAMPS = {
    heat: "000004 160b39 420a68 6a176e 932667 bc3754 dd513a f37819 fca50a f6d746 fcffa4",
    cool: "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725",
  };
  const stops = Object.fromEntries(
    Object.entries(RAMPS).map(([name, text]) => [
      name,
      text.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16))),
    ]),
  );
  const modulo = (value, size) => ((value % size) + size) % size;

  // the arrays of a layer, cut from its bytes in the order in which they were packed
  async function open(layer) {
    layer.opened ??= unpack(layer.packed);
    const bytes = await layer.opened;
    let from = 0;
    const cut = (kind, count) => {
      const part = new kind(bytes.buffer, from, count);
      from += part.byteLength;
      return part;
    };
    const quantiles = cut(Uint16Array, layer.heads * layer.quantiles);
    if (!layer.queries) return { quantiles };
    const area = (sides) => layer.heads * sides[0] * sides[1];
    return {
      quantiles,
      bins: cut(Uint16Array, layer.heads * layer.even.length),
      place: cut(Uint8Array, area(layer.grid)),
      offset: cut(Uint8Array, area(layer.offsets)),
      rows: cut(Uint8Array, bytes.length - from),
    };
  }

  const ratio = (code, steps) => (code ? 2 ** (code / steps - UNIFORM) : 0);
  const ends = (steps) => [2 ** -6, 2 ** (UNIFORM - 1 / steps)]; // what codes can tell

  // positions that the shift mask keeps together: untouched, before and after the wrap
  function region(at, size, window, shift) {
    if (!shift || at < size - window) return 0;
    return at < size - shift ? 1 : 2;
  }

  // token at each position of the query's window, row-major; -1 where the mask hides it
  function keys(layer, query) {
    const [rows, cols] = layer.grid;
    const [height, width] = layer.window ?? layer.grid;
    const [down, right] = layer.shift;
    const y = modulo(Math.floor(query / cols) - down, rows);
    const x = modulo((query % cols) - right, cols);
    const [top, left] = [y - (y % height), x - (x % width)];
    const found = new Int32Array(height * width).fill(-1);
    for (let at = 0; at < found.length; at += 1) {
      const [b, a] = [top + Math.floor(at / width), left + (at % width)];
      const near = region(b, rows, height, down) === region(y, rows, height, down);
      if (near && region(a, cols, width, right) === region(x, cols, width, right)) {
        found[at] = modulo(b + down, rows) * cols + modulo(a + right, cols);
      }
    }
    return found;
  }

  // times uniform at each token of the grid; NaN where the query sees no key
  function row(layer, opened, image, head, at, steps) {
    const cells = layer.cells[0] * layer.cells[1];
    const start = ((image * layer.heads + head) * layer.queries.length + at) * cells;
    const values = new Float32Array(layer.grid[0] * layer.grid[1]).fill(NaN);
    const width = (layer.window ?? layer.grid)[1];
    keys(layer, layer.queries[at]).forEach((token, position) => {
      if (token < 0) return;
      const down = Math.floor(Math.floor(position / width) / layer.pool);
      const cell = down * layer.cells[1] + Math.floor((position % width) / layer.pool);
      values[token] = ratio(opened.rows[start + cell], steps);
    });
    return values;
  }

  function mean(codes, sides, head, steps) {
    const area = sides[0] * sides[1];
    return Float32Array.from(codes.subarray(head * area, (head + 1) * area), (code) =>
      ratio(code, steps),
    );
  }

  const bins = (layer, opened, head) => {
    const count = layer.even.length;
    return Array.from(opened.bins.subarray(head * count, (head + 1) * count), (n) => n / MASS);
  };
  const distances = (layer, opened, head) => {
    const part = opened.quantiles.subarray(head * layer.quantiles, (head + 1) * layer.quantiles);
    return Array.from(part, (n) => n * layer.scale);
  };

  const centre = (layer, token) => [
    (Math.floor(token / layer.grid[1]) + 0.5) * layer.patch[0],
    ((token % layer.grid[1]) + 0.5) * layer.patch[1],
  ];
  function gap(layer, a, b) {
    const [from, to] = [centre(layer, a), centre(layer, b)];
    return Math.hypot(from[0] - to[0], from[1] - to[1]);
  }

  // index of the stored query nearest to a point given as parts of the image's height and width
  function nearest(layer, point) {
    let [best, least] = [0, Infinity];
    layer.queries.forEach((token, at) => {
      const [y, x] = centre(layer, token);
      const far = Math.hypot(
        y / layer.patch[0] - point[0] * layer.grid[0],
        x / layer.patch[1] - point[1] * layer.grid[1],
      );
      if (far < least - 1e-9) [best, least] = [at, far];
    });
    return best;
  }

  function colour(part, ramp = "heat") {
    const known = stops[ramp];
    const at = Math.min(Math.max(part, 0), 1) * (known.length - 1);
    const low = Math.min(Math.floor(at), known.length - 2);
    return known[low].map((value, n) => Math.round(value + (known[low + 1][n] - value) * (at - low)));
  }
  // place of a value between the ends of the colours, which are octaves around uniform
  const part = (value, [low, high]) => (value > 0 ? (Math.log2(value) - low) / (high - low) : 0);

  return {
    open, keys, row, mean, bins, distances, centre, gap, nearest, colour, part, ends,
  };
})();
