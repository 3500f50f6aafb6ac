// tables: sort by heading, filter by words, save as CSV; long ones are built when opened
"use strict";
const payload = JSON.parse(document.getElementById("payload").textContent);

const shown = (cell, places) => {
  if (cell === null) return "–";
  if (places === null) return String(cell);
  return places >= 0 ? cell.toFixed(places) : String(Number(cell.toPrecision(-places)));
};

function build(place, table) {
  const element = (name, parent) => parent.appendChild(document.createElement(name));
  const root = element("table", place);
  const top = element("tr", element("thead", root));
  table.headings.forEach((heading, at) => {
    const cell = element("th", top);
    cell.scope = "col";
    cell.dataset.column = table.columns[at];
    cell.textContent = heading;
    if (table.numeric[at]) cell.className = "number";
  });
  const body = element("tbody", root);
  for (const row of table.rows) {
    const line = element("tr", body);
    row.forEach((value, at) => {
      const cell = element("td", line);
      cell.dataset.value = value === null ? "" : value;
      cell.textContent = shown(value, table.places[at]);
      if (table.numeric[at]) cell.className = "number";
    });
  }
}

function compare(a, b, numeric) {
  if (a === "" || b === "") return (a === "") - (b === ""); // what was not measured goes last
  return numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
}

function sort(body, at, numeric, down) {
  const value = (row) => row.cells[at].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    const order = compare(value(a), value(b), numeric);
    return down && value(a) !== "" && value(b) !== "" ? -order : order;
  });
  body.append(...rows);
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(table.tBodies[0], at, head.classList.contains("number"), down);
    });
  });
}

function filterable(box, table) {
  const input = box.querySelector("[data-filter]");
  const count = box.querySelector("[data-count]");
  const rows = [...table.tBodies[0].rows];
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = 0;
    for (const row of rows) {
      const cells = [...row.cells].map((cell) => cell.textContent.toLowerCase());
      row.hidden = !words.every((word) => cells.some((text) => text.includes(word)));
      kept += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${kept} of ${rows.length} rows` : "";
  });
}

function csv(table) {
  const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const head = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.column);
  const rows = [...table.tBodies[0].rows]
    .filter((row) => !row.hidden)
    .map((row) => [...row.cells].map((cell) => cell.dataset.value));
  return [head, ...rows].map((row) => row.map(quote).join(",") + "\r\n").join("");
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function enhance(box) {
  const table = box.querySelector("table");
  sortable(table);
  filterable(box, table);
  const button = box.querySelector("[data-csv]");
  button.addEventListener("click", () => save(`${box.dataset.table}.csv`, csv(table)));
  box.querySelectorAll(".tools").forEach((tools) => { tools.hidden = false; });
}

document.querySelectorAll(".table").forEach((box) => {
  if (box.querySelector("table")) enhance(box);
});
document.querySelectorAll("details[data-later]").forEach((details) => {
  details.addEventListener("toggle", () => {
    const box = details.querySelector(".table");
    if (!details.open || box.querySelector("table")) return;
    build(box.querySelector(".scroll"), payload.tables[details.dataset.later]);
    enhance(box);
  });
});
