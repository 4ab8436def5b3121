"use strict";
/* The label explorer. Text is only ever set as textContent; nothing is fetched. */
(() => {
  const PAGE = 25;
  const root = document.getElementById("explorer");
  const source = document.getElementById("labels");
  if (!root || !source || typeof DecompressionStream === "undefined") return;

  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const percent = (thousandths) => (thousandths / 10).toFixed(0) + " %";

  async function unpack() {
    const packed = JSON.parse(source.textContent).deflate;
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function start(data) {
    const prompts = data.prompts, rows = data.rows;
    let lower = null, hay = null; // made at the first search
    const has = (words, i) => {
      hay ??= rows.map((r) => (r[0] + "\n" + r[2] + "\n" + r[3]).toLowerCase());
      lower ??= prompts.map((text) => text.toLowerCase());
      return hay[i].includes(words) || lower[rows[i][1]].includes(words);
    };
    const controls = root.querySelector(".controls"), list = root.querySelector(".pairs");
    const count = root.querySelector(".count"), pager = root.querySelector(".pager");
    const [principle, show, search] = ["principle", "show", "search"].map((n) => controls.querySelector("[name=" + n + "]"));
    const [back, next] = pager.querySelectorAll("button"), where = pager.querySelector("span");
    let found = [], page = 0;

    const KEEPS = {
      all: () => true,
      abstained: (r) => r[4] === null,
      disagree: (r) => r[6] === 1,
      flip: (r) => r[7] > 0,
      close: (r) => r[4] !== null && Math.abs(r[4] - 500) < 100,
      sure: (r) => r[4] !== null && Math.abs(r[4] - 500) > 400,
    };
    function filter() {
      const wanted = principle.value === "" ? null : Number(principle.value);
      const keeps = show.value.startsWith("why-")
        ? ((why) => (r) => r[5] === why || r[8].some((j) => j[3] === why && (wanted === null || j[0] === wanted)))(Number(show.value.slice(4)))
        : KEEPS[show.value];
      const words = search.value.toLowerCase().trim();
      found = [];
      rows.forEach((r, i) => {
        if (wanted !== null && !r[8].some((j) => j[0] === wanted)) return;
        if (keeps(r) && (!words || has(words, i))) found.push(r);
      });
      page = 0;
      draw();
    }
    function draw() {
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      count.textContent = found.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " pairs";
      where.textContent = "page " + (page + 1) + " of " + pages;
      back.disabled = page === 0;
      next.disabled = page >= pages - 1;
      list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(pair));
    }
    function pair(r) {
      const box = make("details", "pair"), head = make("summary");
      const lines = prompts[r[1]].split("\n");
      head.append(verdict(r), make("span", "ask", lines[lines.length - 1].replace(/^user: /, "")));
      if (r[6]) head.append(make("span", "badge plain", "principles disagree"));
      if (r[7]) head.append(make("span", "badge plain", r[7] === 1 ? "1 flip" : r[7] + " flips"));
      box.append(head);
      box.addEventListener("toggle", () => { if (box.open && box.childElementCount === 1) box.append(provenance(r)); });
      return box;
    }
    function verdict(r) {
      if (r[4] === null) return make("span", "verdict none", "no label: " + data.reasons[r[5]].replaceAll("_", " "));
      const better = r[4] >= 500;
      return make("span", "verdict", (r[4] === 500 ? "tie" : better ? "A" : "B") + " " + percent(better ? r[4] : 1000 - r[4]));
    }
    function provenance(r) {
      const body = make("div", "provenance");
      body.append(make("p", "small", "pair " + r[0]), make("blockquote", "text", prompts[r[1]]));
      const two = make("div", "two");
      ["A", "B"].forEach((name, i) => {
        const side = make("div");
        side.append(make("h4", "", "Response " + name), make("blockquote", "text", r[2 + i]));
        two.append(side);
      });
      const scroll = make("div", "scroll"), table = make("table");
      scroll.tabIndex = 0;
      const top = make("tr");
      ["principle", "order", "P(A better)", "labeler wrote"].forEach((t) => top.append(make("th", "", t)));
      const thead = make("thead"), tbody = make("tbody");
      thead.append(top);
      r[8].forEach((j) => {
        const line = make("tr");
        line.append(
          make("th", "", j[0] < 0 ? "no principle" : data.principles[j[0]]),
          make("td", "", j[1] ? "B shown first" : "A shown first"),
          make("td", "figure", j[2] === null ? "abstained: " + data.reasons[j[3]].replaceAll("_", " ") : percent(j[2])),
          make("td", "raw", j[4] || "")
        );
        tbody.append(line);
      });
      table.append(thead, tbody);
      scroll.append(table);
      body.append(two, scroll);
      return body;
    }
    function turn(by) {
      page += by;
      draw();
      root.querySelector(".count").scrollIntoView({ block: "nearest" });
    }
    let timer = 0;
    search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 150); });
    [principle, show].forEach((control) => control.addEventListener("change", filter));
    back.addEventListener("click", () => turn(-1));
    next.addEventListener("click", () => turn(1));
    controls.hidden = pager.hidden = false;
    filter();
  }
  unpack().then(start, () => {});
})();
