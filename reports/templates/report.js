// Sorting, filtering and copying. The page is complete without this file.
"use strict";
(() => {
  const say = (text) => { document.getElementById("said").textContent = text; };
  const plural = (n, nouns) => `${n.toLocaleString("en")} ${n === 1 ? nouns.replace(/s$/, "") : nouns}`;

  // --- sorting: a click on a column's heading; cells without a value stay last ---
  const key = (row, column, numeric) => {
    const cell = row.cells[column];
    const raw = cell.dataset.value ?? cell.textContent.trim();
    if (!numeric) return raw === "" || raw === "—" ? null : raw;
    return raw === "" ? null : Number(raw);
  };
  const compare = (a, b) => (typeof a === "number" ? (a < b ? -1 : a > b ? 1 : 0)
    : a.localeCompare(b, "en", { numeric: true }));
  const sort = (table, heading) => {
    const numeric = heading.dataset.type === "number";
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const direction = heading.getAttribute("aria-sort") === first ? second : first;
    const sign = direction === "ascending" ? 1 : -1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const rows = Array.from(table.tBodies[0].rows, (row) => [key(row, heading.cellIndex, numeric), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    say(`sorted by ${heading.textContent}, ${direction}`);
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading));
    }
  }

  // --- filtering: every word must occur ---
  for (const tools of document.querySelectorAll("[data-filter]")) {
    const items = Array.from(document.getElementById(tools.dataset.filter).querySelectorAll("[data-item]"));
    if (items.length < 4) continue;
    const texts = items.map((item) => item.textContent.toLowerCase());
    const input = document.createElement("input");
    const shown = document.createElement("span");
    input.type = "search";
    input.placeholder = `Filter ${tools.dataset.of}`;
    input.setAttribute("aria-label", input.placeholder);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      items.forEach((item, i) => {
        item.hidden = !words.every((word) => texts[i].includes(word));
        left += item.hidden ? 0 : 1;
      });
      shown.textContent = words.length ? `${left.toLocaleString("en")} of ${plural(items.length, tools.dataset.of)}` : "";
      say(shown.textContent);
    });
    tools.append(input, shown);
    tools.hidden = false;
  }

  // --- copying ---
  const copyBySelection = (element) => {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  };
  const copy = async (element) => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      return copyBySelection(element);
    }
  };
  for (const element of document.querySelectorAll("[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const done = await copy(element);
      button.textContent = done ? "Copied" : "Select and copy";
      say(button.textContent);
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
    element.after(button);
  }
})();
