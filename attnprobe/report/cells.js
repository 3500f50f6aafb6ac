// the grid of heads of a panel: rows are layers, columns are heads, colours a chosen quantity
"use strict";
if (explorer) {
  const { boxes, models, state, counted, element, find, short, spot, valueOf, unitOf } = explorer;
  const built = boxes.map(() => ({ model: -1, cells: [] }));
  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  // least and largest value over all models, so that colours agree between panels
  function limits() {
    const each = models.flatMap(({ layers }) =>
      layers.flatMap((layer) => counted(layer.heads).map((head) => valueOf(layer, head))),
    );
    const known = each.filter((value) => value !== null);
    return known.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [
      Infinity,
      -Infinity,
    ]);
  }

  function name(text, role, row, column) {
    const made = element("div", text, "name");
    made.setAttribute("role", role);
    made.style.gridArea = `${row} / ${column}`;
    return made;
  }

  function build(n) {
    const { layers } = models[state.panels[n].model];
    const most = Math.max(...layers.map((layer) => layer.heads));
    const grid = find(boxes[n], "cells");
    grid.style.gridTemplateColumns = `max-content repeat(${most}, minmax(8px, 38px))`;
    grid.style.setProperty("--most", most);
    grid.style.setProperty("--tall", `${layers.length <= 12 ? 16 : layers.length <= 24 ? 11 : 9}px`);
    grid.setAttribute("aria-label", `Heads of ${models[state.panels[n].model].name}`);
    const thin = (count, all) => (count <= all ? 1 : count <= 2 * all ? 2 : 4);
    const [across, down] = [thin(most, 16), thin(layers.length, 14)];
    const line = () => {
      const row = element("div");
      row.setAttribute("role", "row");
      return row;
    };
    const top = line();
    top.append(name("", "columnheader", 1, 1));
    top.append(...counted(most).map((head) =>
      name(head % across ? "" : head + 1, "columnheader", 1, head + 2),
    ));
    const cells = layers.map((layer, at) => counted(layer.heads).map((head) => {
      const cell = element("div");
      cell.setAttribute("role", "gridcell");
      cell.style.gridArea = `${at + 2} / ${head + 2}`;
      Object.assign(cell.dataset, { layer: at, head });
      return cell;
    }));
    const rows = cells.map((part, at) => {
      const row = line();
      row.append(name(at % down ? "" : at + 1, "rowheader", at + 2, 1), ...part);
      return row;
    });
    grid.replaceChildren(top, ...rows);
    built[n] = { model: state.panels[n].model, cells };
  }

  const same = (panel, model, layer, head) =>
    panel.model === model && panel.layer === layer && panel.head === head;

  function paint(n) {
    if (built[n].model !== state.panels[n].model) build(n);
    const { model } = built[n];
    const [low, high] = limits();
    const unit = unitOf(models[model]);
    const ends = unit.startsWith("%") ? unit : ` ${unit}`.trimEnd();
    built[n].cells.forEach((row, layer) => row.forEach((cell, head) => {
      const value = valueOf(models[model].layers[layer], head);
      const part = high > low ? (value - low) / (high - low) : 0.5;
      const chosen = same(state.panels[n], model, layer, head);
      cell.classList.toggle("empty", value === null);
      cell.classList.toggle("chosen", chosen);
      cell.classList.toggle("other", !chosen && same(state.panels[1 - n], model, layer, head));
      cell.style.background = value === null ? "" : `rgb(${attention.colour(part, "cool").join()})`;
      cell.tabIndex = chosen ? 0 : -1;
      cell.setAttribute("aria-selected", String(chosen));
      const words = value === null ? "not measured" : `${short(value)} ${unit}`.trim();
      cell.title = `${spot({ layer, head })}: ${words}`;
      cell.setAttribute("aria-label", cell.title);
    }));
    key(n, low, high, ends);
  }

  function key(n, low, high, unit) {
    const bar = element("span", "", "bar");
    const stops = counted(11).map((at) => `rgb(${attention.colour(at / 10, "cool").join()})`);
    bar.style.background = `linear-gradient(to right, ${stops.join()})`;
    const text = Number.isFinite(low) ? [short(low), bar, `${short(high)} ${unit.trim()}`] : [];
    const note = element("span", "Rows are layers, columns heads.", "which");
    find(boxes[n], "key").replaceChildren(...text, note);
  }

  const cellAt = (n, layer, head) => {
    const { cells } = built[n];
    const row = cells[Math.min(Math.max(layer, 0), cells.length - 1)];
    return row[Math.min(Math.max(head, 0), row.length - 1)];
  };

  function rove(n, from, key) {
    const [layer, head] = [Number(from.dataset.layer), Number(from.dataset.head)];
    const ends = { Home: [layer, 0], End: [layer, Infinity] };
    const move = MOVES[key];
    const to = ends[key] ?? (move && [layer + move[0], head + move[1]]);
    if (!to) return false;
    const cell = cellAt(n, ...to);
    from.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
    return true;
  }

  boxes.forEach((box, n) => {
    const grid = find(box, "cells");
    const take = ({ dataset }) =>
      explorer.choose(n, { layer: Number(dataset.layer), head: Number(dataset.head) });
    grid.addEventListener("click", ({ target }) => {
      if (target.dataset.head === undefined) return;
      take(target);
      target.focus({ preventScroll: true });
    });
    grid.addEventListener("keydown", (event) => {
      if (event.target.dataset.head === undefined) return;
      const chosen = event.key === "Enter" || event.key === " ";
      if (chosen) take(event.target);
      if (chosen || rove(n, event.target, event.key)) event.preventDefault();
    });
  });
  explorer.parts.push(paint);
}
