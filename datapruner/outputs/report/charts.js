  // ---------------------------------------------------------------- colours
  const wantsDark = matchMedia("(prefers-color-scheme: dark)");
  let theme = "auto";
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => [0, 1, 2, 3, 4, 5, 6].map((number) => colour(`--c${number}`));

  function layout(more) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), color: colour("--quiet"), automargin: true };
    const coarse = matchMedia("(pointer: coarse)").matches;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 50, r: 12, t: 10, b: 45 }, hovermode: "closest", dragmode: coarse ? false : "zoom", bargap: 0,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false, font: { size: 12 } },
      ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
    };
  }
  // A format of our own makes Plotly write 200 and 500 in full; beyond three decades, powers of ten have to do.
  function logAxis(values) {
    const low = values.reduce((a, b) => Math.min(a, Math.max(b, 1)), Infinity), high = values.reduce((a, b) => Math.max(a, b), 1);
    return { type: "log", dtick: high / low > 1000 ? 1 : "D2", tickformat: ",d" };
  }
  const config = { displayModeBar: false, responsive: true };

  // ---------------------------------------------------------------- clouds of points
  const clouds = [];
  const ink = (quiet) => ({ size: M > 1500 ? 5 : 7, opacity: quiet ? 0.55 : 0.8, line: { width: 0 } });

  function cloudTraces(cloud) {
    const points = [];
    for (let i = 0; i < M; i++) if (cloud.x(i) !== null && cloud.y(i) !== null) points.push(i);
    const trace = (rows, name, color, quiet = false, more = {}) => ({
      type: "scatter", mode: "markers", name: `${escaped(cut(name, 40))} (${comma(rows.length)})`, x: rows.map(cloud.x), y: rows.map(cloud.y),
      customdata: rows, hoverinfo: "none", marker: { ...ink(quiet), color, ...more },
    });
    if (cloud.by === "score") {
      const score = scorer().score;
      const rows = points.filter((i) => score[i] !== null);
      const sorted = rows.map((i) => score[i]).sort((a, b) => a - b);
      const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
      return [trace(rows, scorer().called, rows.map((i) => score[i]), false, {
        colorscale: "Cividis", cmin: at(0.02), cmax: at(0.98), showscale: true, colorbar: { thickness: 10, outlinewidth: 0, len: 0.9, tickfont: { color: colour("--quiet") } },
      })];
    }
    if (cloud.by === "votes") {
      return [trace(points, "kept by", points.map((i) => votes[i]), false, { colorscale: "Cividis", cmin: 0, cmax: D.selections.length, showscale: true, colorbar: { thickness: 10, outlinewidth: 0, len: 0.9, tickfont: { color: colour("--quiet") } } })];
    }
    if (cloud.by.startsWith("facet")) {
      const f = D.facets[Number(cloud.by.slice(5))];
      const groups = new Map();
      for (const i of points) { if (!groups.has(f.codes[i])) groups.set(f.codes[i], []); groups.get(f.codes[i]).push(i); }
      const order = [...groups.keys()].filter((j) => j >= 0).sort((a, b) => groups.get(b).length - groups.get(a).length);
      const colours = palette();
      const rest = [...order.slice(colours.length), -1].flatMap((j) => groups.get(j) || []);
      const named = order.slice(0, colours.length).map((j, place) => trace(groups.get(j), `${f.names[j]}`, colours[place]));
      return rest.length ? [trace(rest, "others", colour("--dropped"), true), ...named] : named;
    }
    return [trace(points.filter((i) => !isKept(i)), "dropped", colour("--dropped"), true), trace(points.filter((i) => isKept(i)), "kept", colour("--accent"))];
  }

  function quadrantParts(cloud) {
    if (!cloud.plane) return { shapes: [], annotations: [] };
    const cuts = D.plane.cuts[state.selection];
    const line = { color: colour("--quiet"), width: 1, dash: "dot" };
    const across = [...new Set(cuts.y)].filter((v) => v !== null).map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line }));
    const down = [...new Set(cuts.x)].filter((v) => v !== null).map((x) => ({ type: "line", yref: "paper", y0: 0, y1: 1, x0: x, x1: x, line }));
    const corners = [[1, 1, "right", "top"], [0, 1, "left", "top"], [0, 0, "left", "bottom"], [1, 0, "right", "bottom"]];
    const annotations = corners.map(([x, y, xanchor, yanchor], q) => ({ xref: "paper", yref: "paper", x, y, xanchor, yanchor, text: `<b>Q${q + 1}</b>`, showarrow: false, font: { color: colour("--quiet"), size: 13 } }));
    return { shapes: [...across, ...down], annotations };
  }

  function drawCloud(cloud) {
    const drawn = layout({
      xaxis: { title: { text: escaped(cloud.labels[0]) }, zeroline: false, ...(cloud.logX ? logAxis(D.lengths.values) : {}) },
      yaxis: { title: { text: escaped(cloud.labels[1]) }, zeroline: false, ...(cloud.equal ? { scaleanchor: "x" } : {}) },
      ...quadrantParts(cloud), uirevision: "same",
    });
    const done = Plotly.react(cloud.plot, cloudTraces(cloud), drawn, config);
    cloud.note.replaceChildren(node("p", { class: "note" }, cloud.count()));
    if (cloud.plane) {
      const cuts = D.plane.cuts[state.selection];
      cloud.note.prepend(
        node("ul", { class: "quadrants" }, ...cuts.quadrants.map((q) => node("li", {}, `${q.name}: ${comma(q.kept)} kept of ${comma(q.rows)}`))),
        node("p", { class: "note" }, cuts.medians ? "Dotted: the medians." : "Dotted: the thresholds that the selector found for this budget; rows between them belong to no quadrant."),
      );
    }
    return done;
  }

  function makeClouds() {
    const list = [];
    const at = (values) => (i) => values[i];
    if (D.plane) list.push({ title: "Error and uncertainty", plane: true, x: at(D.plane.x), y: at(D.plane.y), labels: D.plane.labels, count: () => D.plane.note });
    for (const map of D.maps) list.push({ title: "Map of the vectors", equal: true, x: at(map.x), y: at(map.y), labels: map.labels, count: () => map.note });
    if (D.lengths) {
      const rankOf = (i) => { const rank = scorer().rank[i]; return rank === null || scorer().scored < 2 ? null : (100 * (scorer().scored - rank)) / (scorer().scored - 1); };
      list.push({ title: "Score and length", logX: true, x: (i) => Math.max(D.lengths.values[i], 1), y: rankOf, labels: [D.lengths.unit, "percentile of the score"], count: () => scorer().note });
    }
    $("clouds").hidden = !list.length;
    for (const cloud of list) {
      cloud.by = "kept";
      cloud.plot = node("div", { class: "plot", role: "img", "aria-label": `${cloud.title}: one point a row. The table below has the same rows.` });
      cloud.note = node("div");
      const buttons = node("div", { class: "segments", role: "group", "aria-label": `Colours of ${cloud.title}` });
      const choices = [["kept", "Kept"], ["score", "Score"], ...D.facets.slice(0, 3).map((f, j) => [`facet${j}`, cut(f.name, 18)])];
      if (several) choices.push(["votes", "Agreement"]);
      segments(buttons, choices, "kept", (value) => { cloud.by = value; drawCloud(cloud); });
      $("cloud-list").append(node("figure", {}, node("div", { class: "cloud-head" }, node("h3", {}, cloud.title), buttons), cloud.plot, cloud.note));
      clouds.push(cloud);
    }
  }

  const tip = $("tip");
  function listen(cloud) {
    cloud.plot.on("plotly_hover", (event) => {
      const i = event.points[0].customdata;
      const f = facet();
      tip.textContent = `Row ${comma(D.rows[i])}, ${isKept(i) ? "kept" : "dropped"}${f ? `, ${f.name} ${groupName(f, f.codes[i])}` : ""}\n${scorer().name}: ${show(scorer().score[i])}\n${parts(i).map((text) => cut(text, 140) || "(empty)").join("\n→ ")}`;
      tip.hidden = false;
      const { clientX, clientY } = event.event;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(clientX + 14, innerWidth - box.width - 8))}px`;
      tip.style.top = `${clientY + box.height + 24 > innerHeight ? clientY - box.height - 14 : clientY + 14}px`;
    });
    cloud.plot.on("plotly_unhover", () => { tip.hidden = true; });
    cloud.plot.on("plotly_click", (event) => goTo(event.points[0].customdata));
  }

  // ---------------------------------------------------------------- groups
  const barOrders = { size: "Size", share: "Share kept", name: "Name" };
  let barOrder = "size", allBars = false;
  const FEW = 15;

  function heatCell(share, text) {
    const cell = node("td", { class: "heat" }, text);
    cell.style.setProperty("--heat", share.toFixed(3));
    return cell;
  }
  // Like the summary's: never 0 or 100 unless it is that.
  function share(kept, size) {
    const held = (100 * kept) / size;
    if (held > 0 && held < 0.1) return "under 0.1\u00a0%";
    if (held < 9.95 || (held >= 99.5 && held < 100)) return `${Math.min(held, 99.9).toFixed(1).replace(/^(\d)\.0$/, "$1")}\u00a0%`;
    return `${Math.round(held)}\u00a0%`;
  }

  function drawBars() {
    const f = facet();
    $("groups").hidden = !f;
    if (!f) return;
    const s = state.selection;
    const most = allBars ? f.bars.length : FEW;
    const few = f.bars.slice(0, most), others = f.bars.slice(most);
    const rest = { group: -1, groups: f.rest.groups + others.length, size: f.rest.size + sum(others.map((bar) => bar.size)), kept: f.rest.kept.map((count, j) => count + sum(others.map((bar) => bar.kept[j]))) };
    const bars = [...few];
    if (barOrder === "share") bars.sort((a, b) => b.kept[s] / b.size - a.kept[s] / a.size);
    if (barOrder === "name") bars.sort((a, b) => f.names[a.group].localeCompare(f.names[b.group], "en", { numeric: true }));
    if (rest.groups) bars.push(rest);
    const label = (bar) => (bar.group < 0 ? (rest.groups === 1 ? "1 smaller group" : `${comma(rest.groups)} smaller groups`) : f.names[bar.group] + (f.notes[bar.group] ? ` · ${f.notes[bar.group]}` : ""));
    const name = (bar) =>
      bar.group < 0 ? node("span", { class: "quiet" }, label(bar)) : node("button", { type: "button", title: `Show the rows of ${label(bar)}`, onclick: () => { state.group = String(bar.group); state.page = 0; syncGroups(); drawTable(); $("rows").scrollIntoView(); $("group").focus({ preventScroll: true }); } }, label(bar));
    if (several) {
      const same = D.selections.map((one, j) => j).filter((j) => D.selections[j].budget === now().budget);
      $("bars").replaceChildren(node("div", { class: "scroll", role: "region", "aria-label": "Share of each group that is kept", tabindex: "0" },
        node("table", { class: "shares matrix" },
          node("thead", {}, node("tr", {}, node("th", { scope: "col" }, f.name), node("th", { scope: "col", class: "number" }, "rows"), ...same.map((j) => node("th", { scope: "col" }, ...soft(D.selections[j].name))))),
          node("tbody", {}, ...bars.map((bar) => node("tr", {}, node("th", { scope: "row" }, name(bar)), node("td", { class: "number" }, comma(bar.size)), ...same.map((j) => heatCell(bar.kept[j] / bar.size, share(bar.kept[j], bar.size)))))))));
    } else {
      const largest = Math.max(...bars.filter((bar) => bar.group >= 0).map((bar) => bar.size));
      $("bars").replaceChildren(node("ul", { class: "bar-list" }, ...bars.map((bar) => {
        const inner = node("span");
        const outer = node("span", {}, inner);
        outer.style.width = `${Math.min(100, (100 * bar.size) / largest)}%`;
        inner.style.width = `${(100 * bar.kept[s]) / bar.size}%`;
        return node("li", { class: "bar" }, name(bar), node("span", { class: "track", "aria-hidden": "true" }, outer), node("span", { class: "of" }, `${comma(bar.kept[s])} of ${comma(bar.size)} `, node("span", { class: "quiet" }, `(${share(bar.kept[s], bar.size)})`)));
      })));
    }
    if (f.bars.length > FEW) $("bars").append(node("button", { type: "button", class: "more", "aria-expanded": String(allBars), onclick: () => { allBars = !allBars; drawBars(); $("bars").querySelector(".more").focus(); } }, allBars ? `Show the ${FEW} largest` : `Show ${others.length} more`));
    $("bars-note").textContent = `${several ? "Share of each group's rows that is kept." : "Bars are as long as a group has rows; the coloured part is kept."} ${f.note} A group's name shows its rows below.`;
  }

  function makeBars() {
    const byFacet = node("div", { class: "segments", role: "group", "aria-label": "Groups" });
    byFacet.id = "bar-facets";
    segments(byFacet, D.facets.map((f, j) => [String(j), cut(f.name, 24)]), "0", (value) => setFacet(Number(value)));
    const order = node("div", { class: "segments", role: "group", "aria-label": "Order" });
    segments(order, Object.entries(barOrders), barOrder, (value) => { barOrder = value; drawBars(); });
    $("group-controls").append(...(D.facets.length > 1 ? [byFacet] : []), order);
  }

  function setFacet(number) {
    state.facet = number; state.group = ""; state.page = 0;
    if ($("bar-facets")) press($("bar-facets"), String(number));
    syncGroups(); drawBars(); drawTable();
  }

  // ---------------------------------------------------------------- distributions
  const spreads = [];
  const spreadChoices = () => D.histograms.map((_, j) => j).filter((j) => D.histograms[j].scorer === null || D.histograms[j].scorer === scorer().name);

  function drawSpread(spread) {
    const h = D.histograms[spread.shown];
    const kept = h.kept[state.selection];
    const middle = [], width = [];
    for (let b = 0; b + 1 < h.edges.length; b++) { middle.push((h.edges[b] + h.edges[b + 1]) / 2); width.push(h.edges[b + 1] - h.edges[b]); }
    const ends = (b) => `${b === 0 && h.open[0] ? "below" : show(h.edges[b]) + " to"} ${b === middle.length - 1 && h.open[1] ? "and above" : show(h.edges[b + 1])}`;
    const bar = (name, counts, color) => ({ type: "bar", name, x: middle, y: counts, width, marker: { color, line: { width: 0 } }, hoverinfo: "text", hovertext: counts.map((count, b) => `${comma(count)} ${name}<br>${ends(b)}`), textposition: "none" });
    const dropped = h.all.map((all, b) => all - kept[b]);
    spread.note.textContent = h.note;
    spread.plot.setAttribute("aria-label", `Distribution of ${h.name}, ${comma(sum(kept))} kept rows against ${comma(sum(dropped))} dropped ones.`);
    return Plotly.react(spread.plot, [bar("kept", kept, colour("--accent")), bar("dropped", dropped, colour("--dropped"))], layout({
      barmode: "stack", dragmode: false, xaxis: { title: { text: escaped(h.name) }, fixedrange: true, ...(h.log ? logAxis(h.edges) : {}) }, yaxis: { title: { text: "rows" }, fixedrange: true, rangemode: "tozero" },
    }), config);
  }

  function makeSpreads() {
    const choices = spreadChoices();
    $("spreads").hidden = !choices.length;
    const length = D.histograms.findIndex((h) => D.lengths && h.name === `length in ${D.lengths.unit}`);
    for (const shown of [...new Set([choices[0], length])].filter((j) => j >= 0)) {
      const spread = { shown, plot: node("div", { class: "plot low", role: "img" }), chooser: node("select", { "aria-label": "Distribution of" }), note: node("p", { class: "note" }) };
      spread.chooser.addEventListener("change", () => { spread.shown = Number(spread.chooser.value); drawSpread(spread); });
      $("spread-list").append(node("figure", {}, node("div", { class: "cloud-head" }, spread.chooser), spread.plot, spread.note));
      spreads.push(spread);
    }
    syncSpreads();
  }
  function syncSpreads() {
    const choices = spreadChoices();
    for (const spread of spreads) {
      if (!choices.includes(spread.shown)) spread.shown = choices[0];
      spread.chooser.replaceChildren(...choices.map((j) => option(String(j), D.histograms[j].name)));
      spread.chooser.value = String(spread.shown);
    }
  }

