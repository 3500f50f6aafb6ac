// BibTeX entries: copied by a button, or marked where a browser does not let pages copy
"use strict";
document.querySelectorAll("[data-copy]").forEach((button) => {
  const entries = button.parentElement.querySelector("pre");
  const label = button.textContent;
  const mark = () => window.getSelection().selectAllChildren(entries);
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(entries.textContent);
      button.textContent = "Copied";
    } catch {
      mark();
      button.textContent = "Marked: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = label; }, 2500);
  });
});
