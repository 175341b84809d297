"use strict";
(() => {
  // Text of the data set reaches the page through textContent alone; Plotly, which reads markup, gets it escaped.
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const M = D.rows.length;
  const several = D.selections.length > 1, crowded = D.scorers.length > 1;
  const comma = (number) => number.toLocaleString("en-US");
  const show = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? String(value).replace("-", "−") : value);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  function node(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") made.className = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  const option = (value, text) => node("option", { value }, text);

  // Long names may break after an underscore.
  const soft = (text) => text.split(/(?<=_)/).flatMap((part, j) => (j ? [node("wbr"), part] : [part]));

  function segments(holder, choices, chosen, choose) {
    holder.replaceChildren(
      ...choices.map(([value, text]) =>
        node("button", { type: "button", "data-value": value, "aria-pressed": String(value === chosen), onclick: () => { press(holder, value); choose(value); } }, text),
      ),
    );
  }
  function press(holder, value) {
    for (const button of holder.children) button.setAttribute("aria-pressed", String(button.dataset.value === value));
  }

  // ---------------------------------------------------------------- what is looked at
  const apart = several && D.disagreement !== null;
  const state = { selection: 0, facet: 0, group: "", status: "all", cause: "", other: "", query: "", sort: apart ? "disagreement" : "row", down: apart, page: 0 };
  const SIZE = 25;
  const opened = new Set();
  const now = () => D.selections[state.selection];
  const scorer = () => D.scorers[now().scorer];
  const facet = () => D.facets[state.facet] || null;
  const isKept = (i, selection = now()) => selection.kept[i] === "1";
  const groupName = (f, j) => (j < 0 ? "–" : f.names[j]);
  const reason = (i, selection = now()) => selection.reasons[selection.reason[i]];
  const placeOf = new Map(D.rows.map((row, i) => [row, i]));
  const textOf = new Map([...D.rows.map((row, i) => [row, D.texts[i]]), ...D.original_rows.map((row, j) => [row, D.originals[j]])]);
  const votes = Array.from({ length: M }, (_, i) => D.selections.filter((one) => one.kept[i] === "1").length);
  // What stands for a row: the last question and its answer, or all there is of a row that nobody speaks in.
  function parts(i) {
    const { turns, lead } = D.texts[i];
    const line = (place) => turns[place][1].replace(/\s+/g, " ").trim();
    const answered = lead.length === 2 && turns[lead[1]][0] === "assistant";
    return answered ? lead.map(line) : [lead.map(line).join(" ")];
  }
  const words = D.texts.map((row) => row.turns.map((turn) => turn[1]).join("\n"));
  let folded = null;
  // White space is searched as it is shown, one blank for any of it.
  const blank = (text) => text.replace(/\s+/g, " ").toLowerCase();
  const sought = () => blank(state.query.trim());
  const haystack = (i) => (folded ||= words.map(blank))[i];
  const partial = D.texts.some((row) => row.missing);

  // Here stands charts.js.
  // ---------------------------------------------------------------- rows
  const keys = () => {
    const out = [
      { key: "row", name: "Row", number: true, value: (i) => D.rows[i] },
      { key: "text", name: "Text", title: "length of the text", value: (i) => D.texts[i].length },
    ];
    if (facet()) out.push({ key: "group", name: facet().name, value: (i) => (facet().codes[i] < 0 ? null : groupName(facet(), facet().codes[i])) });
    out.push({ key: "kept", name: "Kept", value: (i) => (isKept(i) ? 0 : 1) });
    if (D.disagreement) out.push({ key: "disagreement", name: "Ranks apart", number: true, value: (i) => D.disagreement[i] });
    if (!several) out.push({ key: "score", name: "Score", number: true, value: (i) => scorer().score[i] });
    D.scorers.forEach((one, s) => out.push({ key: `rank${s}`, name: crowded ? `Rank, ${one.name}` : "Rank", number: true, tall: crowded && one.name, rank: D.selections.find((other) => other.scorer === s && other.budget === now().budget) || true, value: (i) => one.rank[i] }));
    // Beside ranks of several scorers there is no room for it: then it stands under the text.
    if (!crowded) out.push({ key: "why", name: "Reason", value: (i) => reason(i) });
    return out;
  };

  function matching() {
    const query = sought();
    const number = query.replace(/,/g, "");
    const f = facet();
    const out = [];
    for (let i = 0; i < M; i++) {
      if (state.status !== "all" && isKept(i) !== (state.status === "kept")) continue;
      if (state.cause !== "" && now().cause[i] !== Number(state.cause)) continue;
      if (state.group !== "" && f.codes[i] !== Number(state.group)) continue;
      if (state.other !== "" && isKept(i, D.selections[Number(state.other.slice(1))]) !== (state.other[0] === "k")) continue;
      if (query && !haystack(i).includes(query) && !reason(i).toLowerCase().includes(query) && String(D.rows[i]) !== number) continue;
      out.push(i);
    }
    const by = keys().find((one) => one.key === state.sort) || keys()[0];
    const sign = state.down ? -1 : 1;
    const value = out.length ? new Map(out.map((i) => [i, by.value(i)])) : new Map();
    return out.sort((a, b) => {
      const x = value.get(a), y = value.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (typeof x === "string" ? sign * x.localeCompare(y, "en", { numeric: true }) : sign * (x - y)) || a - b;
    });
  }

  function marked(text, query) {
    const found = query && new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/ /g, "\\s+"), "i").exec(text);
    return found ? [text.slice(0, found.index), node("mark", {}, found[0]), text.slice(found.index + found[0].length)] : [text];
  }
  const empty = () => node("span", { class: "quiet" }, "(empty)");
  function piece(text, most, missing) {
    const query = sought();
    const at = query ? text.toLowerCase().indexOf(query) : -1;
    const start = at > most - 60 ? at - 60 : 0;
    return text ? [start ? "…" : "", ...marked(text.slice(start, start + most), query), start + most < text.length || missing ? "…" : ""] : [empty()];
  }
  function snippet(i) {
    const [prompt, answer] = parts(i);
    const { turns, missing } = D.texts[i];
    if (!turns.length) return [node("span", { class: "snippet quiet" }, "no text")];
    if (answer === undefined) return [node("span", { class: "snippet" }, ...piece(prompt, 180, missing))];
    // Excerpts are cut from their longest turn on, so that a short answer is whole.
    const long = missing && answer.length * turns.length >= words[i].length;
    return [node("span", { class: "snippet" }, ...piece(prompt, 150)), node("span", { class: "snippet" }, node("span", { class: "label" }, "answer"), " ", ...piece(answer, 120, long))];
  }
  // What a row duplicates is one click away, where the page shows it.
  function why(i, selection) {
    const text = reason(i, selection).replace(/^(kept|dropped): /, "");
    const found = /^(.*duplicate of row )(\d+)(.*)$/.exec(text);
    const other = found && placeOf.get(Number(found[2]));
    if (other === null || other === undefined) return [text];
    return [found[1], node("button", { type: "button", class: "to-row", title: `Show row ${found[2]}`, onclick: () => goTo(other) }, found[2]), found[3]];
  }
  const badge = (kept) => node("span", { class: kept ? "badge kept" : "badge" }, kept ? "kept" : "dropped");
  // Every selection of the budget that is looked at: what it makes of the row, and why.
  function verdicts(i) {
    return node("ul", { class: "verdicts" }, ...D.selections.filter((one) => one.budget === now().budget).map((one) => {
      const { rank, scored } = D.scorers[one.scorer];
      return node("li", {}, node("b", {}, ...soft(one.name)), node("span", { class: "quiet" }, rank[i] === null ? "no rank" : `rank ${comma(rank[i])} of ${comma(scored)}`), badge(isKept(i, one)), node("span", {}, ...why(i, one)));
    }));
  }

  function spoken(row, mark) {
    const turns = row.turns.map(([role, text], t) => node("div", { class: "turn" }, node("b", {}, role), node("div", {}, ...(text ? mark(text, t) : [empty()]))));
    if (row.missing) turns.push(node("p", { class: "note" }, `${comma(row.missing)} of ${comma(row.length)} characters are not shown.`));
    return turns;
  }
  // Words of a text that another lacks in this order: the longest common subsequence, where that is quickly found.
  function differing(text, other) {
    const a = text.match(/\s+|\S+/g) || [], b = other.match(/\s+|\S+/g) || [];
    if (text === other || a.length * b.length > 1e6) return [text];
    const long = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let x = a.length - 1; x >= 0; x--) for (let y = b.length - 1; y >= 0; y--) long[x][y] = a[x] === b[y] ? long[x + 1][y + 1] + 1 : Math.max(long[x + 1][y], long[x][y + 1]);
    const out = [];
    for (let x = 0, y = 0; x < a.length; ) {
      if (y < b.length && a[x] === b[y]) { out.push(a[x++]); y++; }
      else if (y < b.length && long[x][y + 1] >= long[x + 1][y]) y++;
      else out.push(/\S/.test(a[x]) ? node("mark", {}, a[x++]) : a[x++]);
    }
    return out;
  }
  // A copy stands beside the row that it copies, with the words marked in which they differ.
  function besideOriginal(i) {
    const other = D.copied.length && D.copied[i] >= 0 ? D.copied[i] : null;
    const original = other === null ? null : textOf.get(other);
    if (!original) return null;
    const copy = D.texts[i];
    const side = (title, row, beside) => node("div", {}, node("h4", {}, title), ...spoken(row, (text, t) => differing(text, beside.turns[t] ? beside.turns[t][1] : "")));
    return node("div", { class: "beside" }, side(`Row ${comma(D.rows[i])}, dropped`, copy, original), side(`Row ${comma(other)}, which it copies`, original, copy));
  }

  function detail(i, width) {
    const query = sought();
    const beside = besideOriginal(i);
    const turns = beside ? [beside] : spoken(D.texts[i], (text) => marked(text, query));
    const facts = [];
    const add = (name, value) => facts.push(node("div", {}, node("dt", {}, name), node("dd", {}, show(value))));
    for (const f of D.facets) add(f.name, groupName(f, f.codes[i]) + (f.notes[f.codes[i]] ? ` · ${f.notes[f.codes[i]]}` : ""));
    for (const one of D.scorers) add(one.called, one.score[i]);
    for (const [name, values] of Object.entries(D.columns)) add(name, values[i]);
    if (D.lengths && !(D.lengths.unit === "supervised tokens")) add(D.lengths.unit, D.lengths.values[i]);
    if (several) add("kept by", D.selections.filter((one) => isKept(i, one)).map((one) => one.name).join("; ") || "none");
    return node("tr", { class: "detail", role: "row", id: `detail-${i}` }, node("td", { colspan: width, role: "cell" }, node("div", { class: "inner" }, ...turns, ...(several ? [verdicts(i)] : []), node("dl", { class: "values" }, ...facts))));
  }

  function drawTable() {
    const columns = keys();
    if (!columns.some((one) => one.key === state.sort)) state.sort = "row";
    const rows = matching();
    const pages = Math.max(1, Math.ceil(rows.length / SIZE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const head = node("thead", { role: "rowgroup" }, node("tr", { role: "row" }, ...columns.map((one) => {
      const chosen = one.key === state.sort;
      return node("th", { scope: "col", role: "columnheader", class: [one.number ? "number" : "", one.key].join(" ").trim(), "aria-sort": chosen ? (state.down ? "descending" : "ascending") : "none" },
        node("button", { type: "button", "data-sort": one.key, title: `Sort by ${one.title || one.name}`, "aria-label": one.tall ? one.name : null, onclick: () => { sortBy(one.key, chosen ? !state.down : one.key === "score" || one.key === "disagreement" || one.key === "text"); document.querySelector(`[data-sort="${one.key}"]`).focus(); } }, node("span", { class: one.tall ? "tall" : "" }, ...(one.tall ? [one.tall] : soft(one.name))), chosen ? (state.down ? " ↓" : " ↑") : ""));
    })));
    const body = node("tbody", { role: "rowgroup" });
    for (const i of rows.slice(state.page * SIZE, (state.page + 1) * SIZE)) {
      const open = opened.has(i);
      const cells = columns.map((one) => {
        const cell = node("td", { role: "cell", "data-label": one.name, class: [one.number ? "number" : "", one.key].join(" ").trim() });
        if (one.key === "text") {
          const button = node("button", { type: "button", class: "expand", "aria-expanded": String(open), "data-row": i, onclick: () => toggle(i) }, open ? "Show less" : "Show all");
          button.setAttribute("aria-label", `${open ? "Show less" : "Show all"} of row ${D.rows[i]}`);
          cell.append(...snippet(i), ...(crowded ? [node("span", { class: "snippet quiet because" }, ...why(i, now()))] : []), button);
        } else if (one.key === "kept") cell.append(badge(isKept(i)));
        else if (one.key === "why") cell.append(...why(i, now()));
        else if (one.key === "group") cell.append(groupName(facet(), facet().codes[i]));
        else if (one.key === "disagreement") cell.append(D.disagreement[i] === null ? "–" : `${Math.round(100 * D.disagreement[i])}\u00a0%`);
        else {
          const value = one.value(i);
          if (several && one.rank && one.rank !== true && isKept(i, one.rank)) cell.classList.add("taken"); cell.append(one.rank || one.key === "row" ? (value === null ? "–" : comma(value)) : show(value));
        }
        return cell;
      });
      body.append(node("tr", { role: "row", class: open ? "open" : "" }, ...cells));
      if (open) body.append(detail(i, columns.length));
    }
    const table = $("table");
    table.setAttribute("role", "table");
    table.replaceChildren(node("caption", { hidden: true }, "Rows"), head, body);
    const shown = M < D.total ? `shown ${M === 1 ? "row" : "rows"}` : M === 1 ? "row" : "rows";
    $("count").textContent = rows.length === M ? `${comma(M)} ${shown}` : `${comma(rows.length)} of ${comma(M)} ${shown} ${rows.length === 1 ? "matches" : "match"}`;
    if (sought() && partial) $("count").textContent += "; of long texts, only what the page holds is searched";
    $("pager").hidden = pages < 2;
    $("page").textContent = `Page ${comma(state.page + 1)} of ${comma(pages)}`;
    for (const button of $("pager").querySelectorAll("button")) button.disabled = ["first", "back"].includes(button.dataset.go) ? state.page === 0 : state.page === pages - 1;
    $("pager").dataset.pages = pages;
    $("sort").replaceChildren(...columns.map((one) => option(one.key, one.title || one.name)));
    $("sort").value = state.sort;
    $("direction").textContent = state.down ? "Descending ↓" : "Ascending ↑";
  }

  function sortBy(key, down) { state.sort = key; state.down = down; state.page = 0; drawTable(); }
  function toggle(i) {
    if (opened.has(i)) opened.delete(i); else opened.add(i);
    drawTable();
    const button = document.querySelector(`[data-row="${i}"]`);
    if (button) button.focus({ preventScroll: true });
  }
  function goTo(i) {
    tip.hidden = true;
    clearFilters();
    opened.add(i);
    state.page = Math.floor(matching().indexOf(i) / SIZE);
    drawTable();
    const button = document.querySelector(`[data-row="${i}"]`);
    button.closest("tr").scrollIntoView({ block: "center" });
    button.focus({ preventScroll: true });
  }
  function clearFilters() {
    Object.assign(state, { group: "", status: "all", cause: "", other: "", query: "", page: 0 });
    $("query").value = ""; $("cause").value = ""; $("other").value = ""; $("group").value = "";
    press($("status"), "all");
  }

  function syncGroups() {
    const f = facet();
    $("facet-field").hidden = D.facets.length < 2;
    $("group-field").hidden = !f;
    if (!f) return;
    $("facet").value = String(state.facet);
    const held = [...new Set(f.codes)].filter((j) => j >= 0).sort((a, b) => f.names[a].localeCompare(f.names[b], "en", { numeric: true }));
    $("group").replaceChildren(option("", "all"), ...held.map((j) => option(String(j), f.names[j] + (f.notes[j] ? ` · ${f.notes[j]}` : ""))));
    $("group").value = state.group;
  }
  // What became of rows, beyond kept and dropped: shown where rows were dropped for more than one cause.
  function syncCauses() {
    const counts = now().causes.map((_, j) => now().cause.filter((one) => one === j).length);
    const there = counts.map((count, j) => j).filter((j) => j && counts[j]);
    $("cause-field").hidden = there.length < 2;
    if (!there.includes(Number(state.cause))) state.cause = "";
    $("cause").replaceChildren(option("", "any"), ...there.map((j) => option(String(j), `${now().causes[j]} (${comma(counts[j])})`)));
    $("cause").value = state.cause;
  }
  function syncOthers() {
    $("other-field").hidden = !several;
    $("other").replaceChildren(option("", "whatever others do"), ...D.selections.flatMap((one, j) => (j === state.selection ? [] : [option(`k${j}`, `kept by ${one.name}`), option(`d${j}`, `dropped by ${one.name}`)])));
    if (!$("other").querySelector(`[value="${state.other}"]`)) state.other = "";
    $("other").value = state.other;
  }

  function makeTable() {
    $("filters").hidden = false;
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    segments($("status"), [["all", "All"], ["kept", "Kept"], ["dropped", "Dropped"]], "all", (value) => { state.status = value; state.page = 0; drawTable(); });
    let waiting = 0;
    $("query").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { state.query = $("query").value; state.page = 0; drawTable(); }, 120); });
    $("facet").replaceChildren(...D.facets.map((f, j) => option(String(j), f.name)));
    $("facet").addEventListener("change", () => setFacet(Number($("facet").value)));
    $("group").addEventListener("change", () => { state.group = $("group").value; state.page = 0; drawTable(); });
    $("cause").addEventListener("change", () => { state.cause = $("cause").value; state.page = 0; drawTable(); });
    $("other").addEventListener("change", () => { state.other = $("other").value; state.page = 0; drawTable(); });
    $("sort").addEventListener("change", () => sortBy($("sort").value, state.down));
    $("direction").addEventListener("click", () => sortBy(state.sort, !state.down));
    $("clear").addEventListener("click", () => { clearFilters(); drawTable(); });
    $("pager").addEventListener("click", (event) => {
      const go = event.target.dataset.go;
      if (!go) return;
      const last = Number($("pager").dataset.pages) - 1;
      state.page = { first: 0, back: state.page - 1, next: state.page + 1, last }[go];
      drawTable();
      $("count").scrollIntoView({ block: "nearest" });
    });
    syncGroups(); syncCauses(); syncOthers(); drawTable();
  }

  // ---------------------------------------------------------------- the recipe
  function syncRecipe() {
    $("recipe").textContent = now().recipe.join("\n") + "\n";
    if (several) $("recipe-title").textContent = `Recipe of ${now().name}`;
  }
  function makeRecipe() {
    const button = $("copy");
    button.hidden = false;
    syncRecipe();
    button.addEventListener("click", async () => {
      let done = true;
      try { await navigator.clipboard.writeText($("recipe").textContent); }
      catch {
        // Where a page may not write to the clipboard, the text is selected for the reader to copy.
        getSelection().selectAllChildren($("recipe"));
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
      setTimeout(() => { button.textContent = "Copy"; }, 3000);
    });
  }

  // ---------------------------------------------------------------- all together
  async function drawPlots() {
    if (!window.Plotly) return;
    for (const cloud of clouds) await drawCloud(cloud);
    for (const spread of spreads) await drawSpread(spread);
  }
  function applyTheme(choice) {
    theme = choice;
    if (choice === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = choice;
    for (const button of document.querySelectorAll("[data-theme-choice]")) button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    drawPlots();
  }

  for (const button of document.querySelectorAll("[data-theme-choice]")) button.addEventListener("click", () => applyTheme(button.dataset.themeChoice));
  document.querySelector(".theme").hidden = false;
  wantsDark.addEventListener("change", () => { if (theme === "auto") drawPlots(); });
  // Paper is light, whatever the screen is.
  let before = "auto";
  addEventListener("beforeprint", () => { before = theme; applyTheme("light"); });
  addEventListener("afterprint", () => applyTheme(before));

  if (several) {
    document.querySelector(".chooser").hidden = false;
    $("selection").replaceChildren(...D.selections.map((one, j) => option(String(j), one.name)));
    $("selection").addEventListener("change", () => {
      state.selection = Number($("selection").value); state.page = 0;
      const own = D.facets.findIndex((f) => f.scorer === scorer().name);
      if (facet() && facet().scorer && own >= 0) setFacet(own);
      syncCauses(); syncOthers(); syncSpreads(); syncRecipe(); drawBars(); drawTable(); drawPlots();
    });
  }
  makeTable(); makeRecipe(); makeBars(); drawBars(); makeClouds(); makeSpreads();
  // The table answers before Plotly is read; then one plot at a time, so that the page answers in between.
  document.addEventListener("DOMContentLoaded", async () => {
    const idle = () => new Promise((done) => (window.requestIdleCallback ? requestIdleCallback(done, { timeout: 500 }) : setTimeout(done)));
    for (const cloud of clouds) { await idle(); await drawCloud(cloud); listen(cloud); }
    for (const spread of spreads) { await idle(); await drawSpread(spread); }
    document.documentElement.dataset.ready = "true";
  });
})();
