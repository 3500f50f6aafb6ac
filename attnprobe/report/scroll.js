// wide figures and tables: say so, and fade the side on which there is more
"use strict";
const scrollers = [...document.querySelectorAll(".scroll")];

function mark(place) {
  const hidden = place.scrollWidth - place.clientWidth;
  place.classList.toggle("wide", hidden > 1);
  place.classList.toggle("more", hidden - place.scrollLeft > 1);
}

const sizes = new ResizeObserver(() => scrollers.forEach(mark));
scrollers.forEach((place) => {
  sizes.observe(place);
  place.addEventListener("scroll", () => mark(place), { passive: true });
  place.addEventListener("focus", () => mark(place));
  // a long table is built later, inside its place
  new MutationObserver(() => mark(place)).observe(place, { childList: true });
});
