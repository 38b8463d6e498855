"use strict";

// A header's button sorts its table: first up, then down. Cells without a value come last either way.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const header = button.parentElement;
    const table = header.closest("table");
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const numeric = header.classList.contains("number");
    const key = (row) => {
      const cell = row.cells[header.cellIndex];
      const value = numeric ? cell.dataset.value : cell.textContent.trim();
      return value === undefined || value === "" ? null : numeric ? Number(value) : value;
    };
    const order = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const rows = Array.from(body.rows, (row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return down ? order(b, a) : order(a, b);
    });
    body.append(...rows.map(([, row]) => row));
  });
}

// Light or dark follows the system until the reader says otherwise. Shown by this script, for without it it does nothing.
const theme = document.getElementById("theme");
const wanted = matchMedia("(prefers-color-scheme: dark)");
const shown = () => document.documentElement.dataset.theme ?? (wanted.matches ? "dark" : "light");
const name = () => {
  theme.textContent = shown() === "dark" ? "Light theme" : "Dark theme";
};
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = shown() === "dark" ? "light" : "dark";
  name();
});
wanted.addEventListener("change", name);
name();
theme.hidden = false;
