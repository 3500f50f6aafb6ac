// pictures of a head: attention over an image, mean maps, colour scale, spread over distance
"use strict";
const drawing = (() => {
  const SIDE = 640; // canvas pixels of a picture, about
  const SVG = "http://www.w3.org/2000/svg";

  function sized(canvas, rows, cols, patch, side = SIDE) {
    const across = Math.max(1, Math.round(side / cols));
    const down = Math.max(1, Math.round((across * patch[0]) / patch[1]));
    canvas.width = cols * across;
    canvas.height = rows * down;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.imageSmoothingEnabled = false;
    return { pen, across, down };
  }

  // one pixel a value, to be stretched; what is NaN stays clear
  function tile(values, cols, ends, opacity) {
    const small = document.createElement("canvas");
    small.width = cols;
    small.height = values.length / cols;
    const pen = small.getContext("2d");
    const image = pen.createImageData(small.width, small.height);
    values.forEach((value, at) => {
      if (Number.isNaN(value)) return;
      const part = attention.part(value, ends);
      image.data.set([...attention.colour(part), Math.round(255 * opacity(part))], 4 * at);
    });
    pen.putImageData(image, 0, 0);
    return small;
  }

  function hatching() {
    const small = document.createElement("canvas");
    small.width = small.height = 14;
    const pen = small.getContext("2d");
    pen.fillStyle = "rgba(120, 126, 135, 0.62)";
    pen.fillRect(0, 0, 14, 14);
    pen.strokeStyle = "rgba(235, 238, 242, 0.75)";
    pen.lineWidth = 2;
    for (const shift of [-14, 0, 14]) {
      pen.moveTo(shift - 2, 16);
      pen.lineTo(shift + 16, -2);
    }
    pen.stroke();
    return small;
  }

  function outline(pen, box) {
    const [x, y, width, height] = box;
    for (const [ink, thick] of [["#000", 8], ["#fff", 4]]) {
      pen.strokeStyle = ink;
      pen.lineWidth = thick;
      pen.strokeRect(x, y, width, height);
    }
  }

  // the image with times-uniform values over it and the patch that looks outlined
  function picture(canvas, layer, { photo, values, query, ends, overlay }) {
    const [rows, cols] = layer.grid;
    const { pen, across, down } = sized(canvas, rows, cols, layer.patch);
    pen.imageSmoothingEnabled = true;
    if (photo) pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = false;
    const box = (token) => [
      (token % cols) * across, Math.floor(token / cols) * down, across, down,
    ];
    if (overlay) {
      pen.globalCompositeOperation = "saturation";
      pen.fillStyle = "#808080";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.globalCompositeOperation = "source-over";
      pen.fillStyle = "rgba(16, 18, 22, 0.3)"; // bright places must not pass for attention
      pen.fillRect(0, 0, canvas.width, canvas.height);
      const over = tile(values, cols, ends, (part) => 0.42 + 0.36 * part);
      pen.drawImage(over, 0, 0, canvas.width, canvas.height);
      pen.fillStyle = pen.createPattern(hatching(), "repeat");
      values.forEach((value, token) => Number.isNaN(value) && pen.fillRect(...box(token)));
    }
    outline(pen, box(query));
  }

  function mean(canvas, values, [rows, cols], patch, ends) {
    const { pen, across, down } = sized(canvas, rows, cols, patch, 360);
    pen.drawImage(tile(values, cols, ends, () => 1), 0, 0, canvas.width, canvas.height);
    return { pen, across, down };
  }

  function offset(canvas, values, sides, patch, ends) {
    const { pen, across, down } = mean(canvas, values, sides, patch, ends);
    const [y, x] = sides.map((side) => (side - 1) / 2);
    outline(pen, [x * across, y * down, across, down]);
  }

  function node(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const words = (octave) => (octave < 0 ? `1/${2 ** -octave}×` : `${2 ** octave}×`);

  // the colour scale with ticks at powers of two
  function scale(width, ends, ink) {
    const [low, high] = ends;
    const root = node("svg", { width, height: 34, viewBox: `0 0 ${width} 34`, role: "img" });
    root.append(node("title", {}, "Colours: attention as times uniform, logarithmic"));
    const inner = width - 36;
    for (let at = 0; at < 64; at += 1) {
      const fill = `rgb(${attention.colour((at + 0.5) / 64).join()})`;
      const x = 18 + (at * inner) / 64;
      root.append(node("rect", { x, y: 0, width: inner / 64 + 0.4, height: 11, fill }));
    }
    const wide = Math.ceil(((high - low) * 46) / inner);
    const step = wide > 1 ? Math.ceil(wide / 2) * 2 : 1;
    for (let octave = Math.ceil(low / step) * step; octave <= high + 1e-9; octave += step) {
      const x = 18 + ((octave - low) / (high - low)) * inner;
      root.append(node("path", { d: `M${x} 11v4`, stroke: ink.line }));
      const middle = { x, y: 28, "text-anchor": "middle", "font-size": 12, fill: ink.soft };
      root.append(node("text", middle, words(octave)));
    }
    return root;
  }

  const step = (top) => {
    const base = 10 ** Math.floor(Math.log10(top));
    return [0.2, 0.5, 1, 2, 5].map((n) => n * base).find((n) => top / n <= 6) ?? base * 10;
  };

  function axis(root, { at, top, length, flat, form, ink }) {
    const stride = step(top);
    for (let value = 0; value <= top + 1e-9; value += stride) {
      const [x, y] = flat ? [at.x + (value / top) * length, at.y] : [at.x, at.y - (value / top) * length];
      root.append(node("path", { d: flat ? `M${x} ${y}v4` : `M${x} ${y}h-4`, stroke: ink.line }));
      const place = flat
        ? { x, y: y + 17, "text-anchor": "middle" }
        : { x: x - 7, y: y + 4, "text-anchor": "end" };
      root.append(node("text", { ...place, "font-size": 12, fill: ink.soft }, form(value, stride)));
    }
  }

  // bars of mass by distance, what uniform attention would give, and single images below
  function spread(width, head, ink) {
    const { bins, even, bin, mean: middle, low, high, images } = head;
    const strip = images.length > 1;
    const height = bins ? 236 : 96;
    const root = node("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    root.append(node("title", {}, head.title));
    const frame = { left: 46, right: width - 10, top: 12, bottom: height - (strip ? 72 : 42) };
    const far = Math.max((even.length - 0.5) * bin, ...images);
    const length = frame.right - frame.left;
    const x = (distance) => frame.left + ((distance + bin / 2) / (far + bin / 2)) * length;
    if (bins) {
      const tall = frame.bottom - frame.top;
      const most = Math.max(...bins, ...even) * 1.06;
      const y = (mass) => frame.bottom - (mass / most) * tall;
      const gap = Math.min(1, ((length / far) * bin) / 6);
      bins.forEach((mass, at) => {
        const [start, end] = [x((at - 0.5) * bin) + gap, x((at + 0.5) * bin) - gap];
        const bar = { x: start, y: y(mass), width: end - start, height: frame.bottom - y(mass) };
        root.append(node("rect", { ...bar, fill: ink.bar }));
      });
      const line = even.map((mass, at) => {
        const [start, end] = [x((at - 0.5) * bin), x((at + 0.5) * bin)];
        return `${at ? "L" : "M"}${start} ${y(mass)}H${end}`;
      });
      root.append(node("path", { d: line.join(""), fill: "none", stroke: ink.text, "stroke-width": 1.5, "stroke-dasharray": "2 3" }));
      const at = { x: frame.left, y: frame.bottom };
      axis(root, { at, top: 100 * most, length: tall, flat: false, ink, form: (n) => `${+n.toFixed(3)} %` });
    }
    root.append(node("path", { d: `M${frame.left} ${frame.bottom}H${frame.right}`, stroke: ink.line }));
    const under = frame.bottom + (strip ? 30 : 0);
    if (strip) root.append(...rug(images, { x, y: frame.bottom + 15, low, high, ink }));
    if (strip) root.append(node("path", { d: `M${frame.left} ${under}H${frame.right}`, stroke: ink.line }));
    const zero = { x: x(0), y: under };
    axis(root, { at: zero, top: far, length: x(far) - x(0), flat: true, ink, form: (n) => `${+n.toFixed(3)}` });
    const label = { x: (frame.left + frame.right) / 2, y: height - 4, "text-anchor": "middle" };
    root.append(node("text", { ...label, "font-size": 12, fill: ink.soft }, "Distance from the patch that looks (input px)"));
    if (middle !== null) {
      const top = bins ? frame.top - 6 : frame.bottom;
      const foot = bins ? frame.bottom : under;
      root.append(node("path", { d: `M${x(middle)} ${top}V${foot}`, stroke: ink.mark, "stroke-width": 2 }));
    }
    return root;
  }

  function rug(images, { x, y, low, high, ink }) {
    const ticks = images.map((value) => `M${x(value)} ${y - 7}v14`).join("");
    const parts = [node("path", { d: ticks, stroke: ink.bar, "stroke-width": 1.5, opacity: 0.7 })];
    if (low !== null) {
      const bar = { x: x(low) - 1, y: y - 4, width: x(high) - x(low) + 2, height: 8 };
      parts.push(node("rect", { ...bar, rx: 2, fill: ink.mark, stroke: ink.card, "stroke-width": 1.5 }));
    }
    return parts;
  }

  return { picture, mean, offset, scale, spread, node, words };
})();
