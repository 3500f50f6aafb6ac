// pictures by epoch: one is shown, chosen by arrows or a slider; without a script the last one is
"use strict";
document.querySelectorAll("[data-pictures]").forEach((box) => {
  const shown = [...box.parentElement.querySelectorAll("[data-epoch]")];
  const slider = box.querySelector("input");
  const [back, on] = box.querySelectorAll("button");
  const told = box.querySelector("output");

  function show(at) {
    shown.forEach((picture, other) => { picture.hidden = other !== at; });
    const words = `Epoch ${shown[at].dataset.epoch}`;
    slider.value = at;
    slider.setAttribute("aria-valuetext", words);
    told.value = words;
    back.disabled = at === 0;
    on.disabled = at === shown.length - 1;
  }

  slider.max = shown.length - 1;
  slider.addEventListener("input", () => show(Number(slider.value)));
  back.addEventListener("click", () => show(Number(slider.value) - 1));
  on.addEventListener("click", () => show(Number(slider.value) + 1));
  show(shown.length - 1);
  box.hidden = shown.length < 2;
});
