// movies: play, step or drag through a figure's frames; nothing moves before it is asked to
"use strict";
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const PAUSE = 700; // milliseconds a frame
const GLIDE = 350; // of them, in motion

function movie(box) {
  const name = box.dataset.movie;
  const place = plots.find((other) => other.dataset.figure === name);
  const names = payload.figures[name].frames.map((frame) => frame.name);
  const slider = box.querySelector("input");
  const told = box.querySelector("output");
  const button = (what) => box.querySelector(`[data-go=${what}]`);
  let at = names.length - 1; // what the figure shows when it is drawn
  let timer = 0;

  function tell() {
    const words = `${box.dataset.word} ${names[at]}`;
    slider.value = at;
    slider.setAttribute("aria-valuetext", words);
    told.value = words;
    button("back").disabled = at === 0;
    button("on").disabled = at === names.length - 1;
  }

  async function show(next, glide) {
    at = next;
    tell();
    await draw(place);
    const duration = glide && !calm.matches ? GLIDE : 0;
    const frame = { duration, redraw: false };
    // a newer frame ends the motion towards this one, which plotly reports as a rejection
    await Plotly.animate(place, [names[at]], { mode: "immediate", transition: { duration }, frame })
      .catch(() => {});
  }

  function stop() {
    clearTimeout(timer);
    timer = 0;
    button("play").textContent = "Play";
  }

  function next() {
    if (at === names.length - 1) return stop();
    show(at + 1, true);
    timer = setTimeout(next, PAUSE);
  }

  function toggle() {
    if (timer) return stop();
    button("play").textContent = "Pause";
    if (at === names.length - 1) show(0, false);
    timer = setTimeout(next, PAUSE);
  }

  slider.max = names.length - 1;
  slider.addEventListener("input", () => { stop(); show(Number(slider.value), false); });
  button("play").addEventListener("click", toggle);
  button("back").addEventListener("click", () => { stop(); show(Math.max(0, at - 1), true); });
  button("on").addEventListener("click", () => { stop(); show(Math.min(names.length - 1, at + 1), true); });
  // drawn anew in other colours, a figure shows its last frame again
  place.addEventListener("painted", () => { if (at !== names.length - 1) show(at, false); });
  tell();
  box.hidden = !unpacks;
}
document.querySelectorAll("[data-movie]").forEach(movie);
