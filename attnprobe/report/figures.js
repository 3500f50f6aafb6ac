// figures: near ones first, then all others while the page is idle, in the page's colours
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
// one that is never read: reading it between a change and its event would lose the event
const dusk = window.matchMedia(dark.media);
const plots = [...document.querySelectorAll("[data-figure]")];
let printing = false;

const CARD = { day: "#ffffff", night: "#171b21" };

// the traces, layout and frames of a figure, with hues and greys that suit the page
function dressed(name) {
  const night = dark.matches && !printing;
  const card = night ? CARD.night : CARD.day;
  const hues = night ? { ...payload.night, "#FFFFFF": card } : {};
  const text = JSON.stringify(payload.figures[name]);
  const figure = JSON.parse(text, (_, value) => hues[value] ?? value);
  Object.assign(figure.layout, {
    font: { color: night ? "#c9cfd8" : "#3d434c" },
    paper_bgcolor: card,
    plot_bgcolor: card,
    hoverlabel: {
      bgcolor: night ? "#2b313a" : "#ffffff",
      bordercolor: "#80868f",
      font: { color: night ? "#e8eaed" : "#16191d" },
    },
  });
  return figure;
}

// the buttons are named one by one because plotly's own choice includes uploading the figure
const settings = (name) => ({
  responsive: true,
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg", filename: name },
});

function paint(place) {
  const name = place.dataset.figure;
  if (!unpacks) place.textContent = "This browser is too old to draw the figures; the tables hold their numbers.";
  place.drawn = plotly.then(() => Plotly.react(place, { ...dressed(name), config: settings(name) }));
  place.drawn.then(() => place.dispatchEvent(new Event("painted")));
  return place.drawn;
}

const draw = (place) => place.drawn ?? paint(place);
const repaint = () => plots.filter((place) => place.drawn).forEach(paint);

const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watch.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "500px" });
plots.forEach((place) => watch.observe(place));

// one by one, so that scrolling stays smooth; nothing depends on being scrolled to
const later = window.requestIdleCallback
  ? (job) => window.requestIdleCallback(job, { timeout: 300 })
  : (job) => setTimeout(job, 50);

function drawNext() {
  const place = plots.find((other) => !other.drawn);
  if (!place) return;
  watch.unobserve(place);
  draw(place).then(() => later(drawNext));
}
window.addEventListener("load", () => later(drawNext));

dusk.addEventListener("change", repaint);
window.addEventListener("beforeprint", () => {
  printing = true;
  plots.forEach(paint);
});
window.addEventListener("afterprint", () => {
  printing = false;
  repaint();
});

document.querySelectorAll("[data-image]").forEach((button) => {
  button.closest(".tools").hidden = !unpacks;
  const place = plots.find((other) => other.dataset.figure === button.dataset.of);
  button.addEventListener("click", async () => {
    await draw(place);
    const format = button.dataset.image;
    const scale = format === "png" ? 2 : 1;
    Plotly.downloadImage(place, { format, scale, filename: button.dataset.of });
  });
});
