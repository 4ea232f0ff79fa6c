// On a phone site.css shows each row of a table as a block: each cell then needs the title of its column before it.
// Paths may break after a slash, and on a phone names after a dot or underscore, so that no column is pushed away.
for (const table of document.querySelectorAll("article table.docutils")) {
  const titles = Array.from(table.querySelectorAll("thead th"), title => title.textContent.trim());
  for (const row of table.querySelectorAll("tbody tr")) {
    Array.from(row.cells).forEach((cell, column) => { cell.dataset.title = titles[column] ?? ""; });
  }
  for (const name of table.querySelectorAll("code .pre")) {
    const parts = name.textContent.split(/(?<=[/._=])(?=\w)/);
    name.replaceChildren(...parts.flatMap(part => {
      const place = document.createElement("wbr");
      place.className = part.endsWith("/") ? "slash" : "phone";
      return [part, place];
    }));
  }
  table.classList.add("titled");
}
