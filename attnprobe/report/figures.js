// figures: drawn when they come near the screen, in the colours of the page
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const plots = [...document.querySelectorAll("[data-figure]")];
let printing = false;

function look() {
  const night = dark.matches && !printing;
  const ink = night ? "#c9cfd8" : "#3d434c";
  const card = night ? "#171b21" : "#ffffff";
  return {
    "font.color": ink,
    paper_bgcolor: card,
    plot_bgcolor: card,
    "hoverlabel.bgcolor": night ? "#2b313a" : "#ffffff",
    "hoverlabel.bordercolor": "#80868f",
    "hoverlabel.font.color": night ? "#e8eaed" : "#16191d",
  };
}

const settings = (name) => ({
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg", filename: name },
});

function draw(place) {
  if (place.drawn) return place.drawn;
  const name = place.dataset.figure;
  const { data, layout } = payload.figures[name];
  place.drawn = Plotly.newPlot(place, data, layout, settings(name)).then(() => paint(place));
  return place.drawn;
}

const paint = (place) => Plotly.relayout(place, look());
const repaint = () => plots.filter((place) => place.drawn).forEach(paint);

const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watch.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "500px" });
plots.forEach((place) => watch.observe(place));

dark.addEventListener("change", repaint);
window.addEventListener("beforeprint", () => {
  printing = true;
  plots.forEach(draw);
  repaint();
});
window.addEventListener("afterprint", () => {
  printing = false;
  repaint();
});

document.querySelectorAll("[data-image]").forEach((button) => {
  button.closest(".tools").hidden = false;
  const place = plots.find((other) => other.dataset.figure === button.dataset.of);
  button.addEventListener("click", async () => {
    await draw(place);
    const format = button.dataset.image;
    const scale = format === "png" ? 2 : 1;
    Plotly.downloadImage(place, { format, scale, filename: button.dataset.of });
  });
});
