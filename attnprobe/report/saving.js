// a panel as one picture: the same maps and numbers, laid out for paper
"use strict";
if (explorer) {
  const { boxes, models, shown, state, find, numbers, spot, inkOf } = explorer;
  const WIDTH = 600;
  const LARGE = 396;
  const SMALL = 180;
  const { node } = drawing;

  // words in lines of so many characters
  function wrapped(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      if (lines.at(-1) && lines.at(-1).length + word.length >= most) lines.push("");
      lines.push(`${lines.pop()} ${word}`.trim());
    }
    return lines;
  }

  function page(n) {
    const ink = inkOf(n, false);
    const root = node("svg", { xmlns: "http://www.w3.org/2000/svg", width: WIDTH });
    root.setAttribute("font-family", "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif");
    let y = 24;
    const write = (text, look = {}, tall = 16) => {
      root.append(node("text", { x: 12, y, "font-size": 12.5, fill: ink.soft, ...look }, text));
      y += tall;
    };
    const block = (text, most, look) => wrapped(text, most).forEach((line) => write(line, look));
    return { root, ink, write, block, at: () => y, to: (next) => { y = next; } };
  }

  function heading(sheet, n) {
    const { name } = models[state.panels[n].model];
    const title = { "font-size": 17, "font-weight": 600, fill: sheet.ink.text };
    wrapped(name, 60).forEach((line) => sheet.write(line.slice(0, 70), title, 21));
    sheet.write(spot(state.panels[n]), { ...title, "font-size": 15 }, 21);
    for (const { label, value, notes } of numbers(n)) {
      sheet.write([`${label}: ${value}`, ...notes].join(", "));
    }
    sheet.to(sheet.at() - 4);
  }

  function image(sheet, canvas, x, y, width) {
    const height = (width * canvas.height) / canvas.width;
    const href = canvas.toDataURL("image/png");
    const look = "image-rendering:pixelated";
    sheet.root.append(node("image", { x, y, width, height, href, style: look }));
    return y + height + 16;
  }

  function maps(sheet, n) {
    const box = boxes[n];
    const { found, ends } = shown[n];
    const top = sheet.at();
    const text = (name) => box.querySelector(`[data-caption=${name}]`).textContent;
    let low = top;
    if (found.values) {
      sheet.to(image(sheet, find(box, "picture"), 12, top, LARGE - 12));
      sheet.block(text("picture"), 56);
      sheet.block(find(box, "status").textContent, 56);
      low = sheet.at();
    }
    const x = found.values ? LARGE + 12 : 12;
    sheet.to(top);
    for (const name of ["offset", "place"]) {
      sheet.to(image(sheet, find(box, name), x, sheet.at(), SMALL));
      sheet.block(text(name), 28, { x });
    }
    sheet.to(Math.max(low, sheet.at()) + 4);
    sheet.write("Colours: attention, times uniform", {}, 8);
    nested(sheet, drawing.scale(400, ends, sheet.ink));
  }

  function nested(sheet, part) {
    part.setAttribute("x", 0);
    part.setAttribute("y", sheet.at());
    sheet.root.append(part);
    sheet.to(sheet.at() + Number(part.getAttribute("height")) + 14);
  }

  // the panel as text of an SVG file, in the colours of paper
  function drawn(n) {
    const sheet = page(n);
    heading(sheet, n);
    if (shown[n].found) maps(sheet, n);
    if (shown[n].head) {
      nested(sheet, drawing.spread(WIDTH - 12, shown[n].head, sheet.ink));
      sheet.block(boxes[n].querySelector("[data-caption=spread]").textContent, 84);
    }
    const height = Math.ceil(sheet.at());
    sheet.root.setAttribute("height", height);
    sheet.root.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
    sheet.root.prepend(node("rect", { width: "100%", height: "100%", fill: "#ffffff" }));
    return new XMLSerializer().serializeToString(sheet.root);
  }

  async function raster(text) {
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = 2 * image.width;
    canvas.height = 2 * image.height;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(image.src);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  async function save(n, kind) {
    const text = drawn(n);
    const blob = kind === "png" ? await raster(text) : new Blob([text], { type: "image/svg+xml" });
    const { model, layer, head } = state.panels[n];
    const name = models[model].name.replace(/[^\w.-]+/g, "_").slice(0, 40);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}-layer-${layer + 1}-head-${head + 1}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  boxes.forEach((box, n) => box.querySelectorAll("[data-export]").forEach((button) => {
    button.addEventListener("click", () => save(n, button.dataset.export));
  }));
}
