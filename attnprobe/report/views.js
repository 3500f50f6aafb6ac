// what a panel shows of its head: attention of a patch, mean maps, and spread over distance
"use strict";
if (explorer) {
  const { root, boxes, models, state, find, layerOf, titled } = explorer;
  const data = payload.explorer;
  const shown = boxes.map(() => ({ turn: 0 })); // what each panel has drawn
  let awake = false;
  let paper = false;

  const inks = (night) => night
    ? { text: "#e8eaed", soft: "#a3abb6", line: "#6b7480", mark: "#e8eaed", card: "#171b21" }
    : { text: "#16191d", soft: "#565d68", line: "#8a929d", mark: "#16191d", card: "#ffffff" };
  function inkOf(n, night = dark.matches && !paper) {
    const hues = Object.entries(payload.night);
    const [day, late] = hues[models[state.panels[n].model].hue] ?? hues[0];
    return { ...inks(night), bar: night ? late : day };
  }

  const photos = data.files.map(() => null);
  function photo(file) {
    photos[file] ??= (async () => {
      const image = new Image();
      image.src = `data:image/jpeg;base64,${data.files[file]}`;
      return image.decode().then(() => image, () => null); // a damaged file leaves no picture
    })();
    return photos[file];
  }

  // values of the three maps of a panel; without an image those of the mean maps alone
  function measure(n, layer, opened) {
    const { model, head } = state.panels[n];
    const held = models[model].images[state.image];
    const at = held && layer.queries.length ? attention.nearest(layer, state.point) : null;
    return {
      layer,
      at,
      file: held?.[1],
      values: at === null ? null : attention.row(layer, opened, held[0], head, at, data.steps),
      place: attention.mean(opened.place, layer.grid, head, data.meanSteps),
      offset: attention.mean(opened.offset, layer.offsets, head, data.meanSteps),
    };
  }

  // ends of the colours in octaves around uniform
  function endsOf(found) {
    if (state.colours !== "own") return [-Number(state.colours), Number(state.colours)];
    const each = [found.values ?? [], found.place, found.offset].flatMap((part) => [...part]);
    const octaves = each.filter((value) => value > 0).map(Math.log2).sort((a, b) => a - b);
    const low = Math.floor(octaves[Math.floor(octaves.length * 0.02)] ?? -1);
    return [low, Math.max(low + 1, Math.ceil(octaves.at(-1) ?? 1))];
  }

  function absence(n, layer, found) {
    const { model } = state.panels[n];
    if (!layer.grid) return "The tokens of this layer have no known place on the image.";
    if (!unpacks) return "This browser is too old to unpack the attention maps of this page.";
    if (!layer.queries) return "The run kept no attention maps; measure again with --maps 3 to keep those of three images.";
    if (!layer.queries.length) return "The attention of single patches is left out of this page.";
    if (!found?.values) return `${models[model].name} has no maps of the image chosen here.`;
    return "";
  }

  async function show(n) {
    if (!awake) return;
    const turn = (shown[n].turn += 1);
    const layer = layerOf(n);
    const opened = unpacks && layer.grid ? await attention.open(layer) : {};
    const found = opened.rows ? measure(n, layer, opened) : null;
    const image = found?.values ? await photo(found.file) : null;
    if (turn !== shown[n].turn) return; // another choice came meanwhile
    const ends = found && endsOf(found);
    Object.assign(shown[n], { layer, opened, found, image, ends });
    draw(n);
    const { model, layer: at, head } = state.panels[n];
    const query = found?.values ? layer.queries[found.at] : "";
    boxes[n].dataset.shown = [model, at, head, state.image, query].join();
  }

  function draw(n) {
    maps(n);
    distances(n);
    explorer.describe(n);
  }

  function maps(n) {
    const box = boxes[n];
    const { layer, found, image, ends } = shown[n];
    const why = absence(n, layer, found);
    find(box, "absent").hidden = !why;
    find(box, "absent").textContent = why;
    for (const name of ["means", "legend", "status"]) find(box, name).hidden = !found;
    if (!found) find(box, "picture").closest("figure").hidden = true;
    if (!found) return;
    const picture = find(box, "picture");
    picture.closest("figure").hidden = !found.values;
    if (found.values) {
      const query = layer.queries[found.at];
      const { overlay } = state;
      drawing.picture(picture, layer, { photo: image, values: found.values, query, ends, overlay });
      picture.setAttribute("aria-label", `Attention of ${titled(n)}; arrow keys move the patch`);
    }
    const cell = layer.patch.map((side) => side * layer.pool);
    drawing.offset(find(box, "offset"), found.offset, layer.offsets, cell, ends);
    drawing.mean(find(box, "place"), found.place, layer.grid, layer.patch, ends);
    captions(n);
    const width = Math.max(200, find(box, "legend").clientWidth);
    const scale = drawing.scale(Math.min(width, 420), ends, inkOf(n));
    find(box, "legend").replaceChildren("Colours: attention, times uniform", scale);
  }

  const CAPTIONS = {
    picture: (layer, hidden) =>
      `Attention of the outlined patch${hidden ? "; hatched patches are none of its keys" : ""}.`,
    offset: () => "By direction and distance: where keys lie, seen from the patch (outlined).",
    place: () => "By place: attention that each patch receives.",
  };
  function captions(n) {
    const { layer, found } = shown[n];
    const hidden = found.values?.some(Number.isNaN);
    for (const [name, words] of Object.entries(CAPTIONS)) {
      boxes[n].querySelector(`[data-caption=${name}]`).textContent = words(layer, hidden);
    }
    find(boxes[n], "offset").setAttribute("aria-label", CAPTIONS.offset());
    find(boxes[n], "place").setAttribute("aria-label", CAPTIONS.place());
  }

  function distances(n) {
    const { layer, opened, found } = shown[n];
    const place = find(boxes[n], "spread");
    const text = boxes[n].querySelector("[data-caption=spread]");
    const head = spreadOf(n, layer, opened ?? {}, found);
    text.hidden = !head;
    if (!head) return place.replaceChildren();
    shown[n].head = head;
    place.replaceChildren(drawing.spread(Math.max(260, place.clientWidth), head, inkOf(n)));
    const whole = head.bins
      ? "Bars: share of attention by distance, in the images with maps. Dotted: uniform attention. "
      : "";
    text.textContent = `${whole}${head.mean === null ? "" : "Line: mean over all measured images. "}${
      head.images.length > 1 ? "Ticks: single images or their quantiles; block: 95 % interval of the mean." : ""
    }`;
  }

  // what the distance figure of a head is drawn from; null when there is nothing to draw
  function spreadOf(n, layer, opened, found) {
    const { head } = state.panels[n];
    const images = opened.quantiles ? attention.distances(layer, opened, head) : [];
    if (!layer.grid || (!found && images.length < 2)) return null;
    const scaled = (layer.values.distance?.[head] ?? [null, null, null]).map((value) =>
      value === null || layer.pixels === null ? null : value * layer.pixels);
    return {
      bins: found ? attention.bins(layer, opened, head) : null,
      even: layer.even,
      bin: Math.sqrt(layer.patch[0] * layer.patch[1]),
      mean: scaled[0],
      low: scaled[1],
      high: scaled[2],
      images,
      title: `Attention of ${titled(n)} by distance`,
    };
  }

  const repaint = () => awake && boxes.forEach((_, n) => shown[n].layer && draw(n));

  // packed maps are opened when the section comes near, or when the page has nothing else to do
  function wake() {
    if (awake) return;
    awake = true;
    boxes.forEach((_, n) => show(n));
  }
  new IntersectionObserver((entries, watch) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    wake();
  }, { rootMargin: "600px" }).observe(root);
  root.addEventListener("chosen", wake);
  window.addEventListener("load", () => setTimeout(wake, 1500));

  dusk.addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => {
    paper = true;
    repaint();
  });
  window.addEventListener("afterprint", () => {
    paper = false;
    repaint();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (width === root.clientWidth) return;
    width = root.clientWidth;
    repaint();
  }).observe(root);

  Object.assign(explorer, { shown, inkOf });
  explorer.parts.push(show);
}
