"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const chunkTags = [...document.querySelectorAll("script.chunk")];
  const inFolder = !$("rows").textContent;
  const reviewed = !$("by-fault").hidden;
  const several = document.querySelectorAll("section.run").length > 1;
  const STEP = 500;
  const dollars = (amount) => "$" + amount.toFixed(4);
  const known = (figure, shown) => (figure === null || figure === undefined ? "?" : shown(figure));
  let rows = [], byKey = new Map(), shown = [], limit = STEP;
  let sort = { by: null, down: false };
  const chunks = new Map();
  const texts = new Map();
  let indexed = false;

  // ---- unpacking -------------------------------------------------------------------------------------------
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const waiting = [];
  window.tau2 = (text) => waiting.shift()(text);
  let lastLoad = Promise.resolve();
  function loadScript(path) {
    const load = () => new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      waiting.push((text) => { tag.remove(); resolve(text); });
      tag.onerror = () => { waiting.pop(); reject(new Error(path + " is missing")); };
      tag.src = path;
      document.head.append(tag);
    });
    lastLoad = lastLoad.then(load, load);
    return lastLoad;
  }

  function chunk(number) {
    if (!chunks.has(number)) {
      const packed = inFolder ? loadScript(`data/conversations-${number}.js`)
        : Promise.resolve(chunkTags[number].textContent);
      chunks.set(number, packed.then(unpack).then((list) => new Map(list.map((one) => [one.key, one]))));
    }
    return chunks.get(number);
  }

  async function conversation(row) {
    const found = (await chunk(row.chunk)).get(row.key);
    if (inFolder) {
      for (const number of chunks.keys()) if (number !== row.chunk && chunks.size > 8) chunks.delete(number);
    }
    return found;
  }

  // ---- small parts of the page: text is always set as text ------------------------------------------------
  function el(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key === "class") node.className = value;
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }
  const TURNING = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;
  const clean = (text) => String(text ?? "").replace(TURNING, "").replace(CONTROL, "\ufffd");
  const short = (value) => clean(typeof value === "string" ? value : JSON.stringify(value));

  function marked(text, word) {
    const whole = clean(text);
    if (!word) return [whole];
    const parts = [];
    const lower = whole.toLowerCase();
    let at = 0;
    for (let place = lower.indexOf(word); place >= 0 && parts.length < 400; place = lower.indexOf(word, at)) {
      parts.push(whole.slice(at, place), el("mark", {}, whole.slice(place, place + word.length)));
      at = place + word.length;
    }
    parts.push(whole.slice(at));
    return parts;
  }

  // ---- the table --------------------------------------------------------------------------------------------
  function filters() {
    return {
      word: $("search").value.trim().toLowerCase(), domain: $("by-domain").value, outcome: $("by-outcome").value,
      cause: $("by-cause").value, ending: $("by-ending").value, trial: $("by-trial").value,
      replies: $("by-replies").checked, fault: $("by-fault").value,
    };
  }

  function fits(row, by) {
    if (by.domain && row.domain !== by.domain) return false;
    if (by.outcome && (by.outcome === "lost") !== Boolean(row.cause)) return false;
    if (by.cause && !row.causes.split(" ").includes(by.cause)) return false;
    if (by.ending && row.termination_reason !== by.ending) return false;
    if (by.trial !== "" && row.trial !== Number(by.trial)) return false;
    if (by.replies && !row.replies) return false;
    if (by.fault && row.fault !== by.fault) return false;
    if (!by.word) return true;
    if (row.key.toLowerCase().includes(by.word) || (row.detail ?? "").toLowerCase().includes(by.word)) return true;
    return (texts.get(row.key) ?? "").includes(by.word);
  }

  function compare(a, b) {
    const x = a[sort.by], y = b[sort.by];
    if (x === y) return 0;
    if (x === null || x === undefined || x === "") return 1;
    if (y === null || y === undefined || y === "") return -1;
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return sort.down ? -order : order;
  }

  function update() {
    const by = filters();
    shown = rows.filter((row) => fits(row, by));
    if (sort.by) shown.sort(compare);
    draw();
    const passed = shown.filter((row) => !row.cause).length;
    $("count").textContent = `${shown.length} of ${rows.length}, ${passed} passed`
      + (by.word && !indexed ? " (still reading conversations)" : "");
    for (const head of document.querySelectorAll("#simulations th")) {
      if (head.dataset.sort === sort.by) head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function draw() {
    const body = document.querySelector("#simulations tbody");
    body.replaceChildren(...shown.slice(0, limit).map((row) => el("tr", { class: row.cause ? "lost" : "won" },
      several ? el("td", {}, clean(row.run)) : null,
      el("td", { class: "id" }, el("a", { href: "#" + encodeURIComponent(row.key) }, clean(row.id))),
      el("td", { class: "n" }, String(row.trial)),
      el("td", { class: "n" }, String(row.reward)),
      el("td", {}, clean(row.termination_reason)),
      el("td", { title: clean(row.detail ?? "") }, clean(row.cause ?? "")),
      reviewed ? el("td", {}, clean(row.fault ?? "")) : null,
      el("td", { class: "n" }, String(row.messages)),
      el("td", { class: "n" }, row.duration_s.toFixed(1) + " s"),
      el("td", { class: "n" }, known(row.output_tokens, String)),
      el("td", { class: "n" }, known(row.cost_usd, dollars)))));
    $("more").hidden = shown.length <= limit;
  }

  function options(select, values) {
    for (const value of [...new Set(values)].filter(Boolean).sort()) select.append(el("option", { value }, clean(value)));
  }

  async function readTexts() {
    const numbers = [...new Set(rows.map((row) => row.chunk))];
    for (const number of numbers) {
      const list = await chunk(number);
      for (const [key, one] of list) {
        const parts = [];
        for (const turn of one.turns) {
          if (turn.text) parts.push(turn.text);
          for (const call of turn.calls ?? []) parts.push(call.name, JSON.stringify(call.arguments));
        }
        texts.set(key, parts.join("\n").toLowerCase());
      }
      if (inFolder) chunks.delete(number);
    }
    indexed = true;
    document.documentElement.dataset.indexed = "yes";
    if ($("search").value) update();
  }

  // ---- one conversation -------------------------------------------------------------------------------------
  const NAMES = { assistant: "agent", user: "customer", tool: "tool" };

  function turn(one, index, word, errors) {
    const about = [el("b", {}, one.role === "tool" ? `result for the ${NAMES[one.by] ?? "caller"}` : NAMES[one.role] ?? clean(one.role))];
    if (one.author && one.author !== "agent") about.push(el("span", {}, "written by " + clean(one.author)));
    about.push(el("span", {}, "#" + index));
    if (one.at_s !== undefined) about.push(el("span", {}, `+${one.at_s} s`));
    if (one.model_s !== undefined) about.push(el("span", {}, `model ${one.model_s} s`));
    if (one.tokens) about.push(el("span", {}, `${one.tokens.prompt_tokens} in, ${one.tokens.completion_tokens} out`));
    for (const mark of one.marks ?? []) about.push(el("span", { class: "mark" }, clean(mark)));
    for (const error of errors) {
      about.push(el("span", { class: `error ${error.party === "customer" ? "customer" : ""}${error.major ? "" : " minor"}`, title: clean(error.detail) },
        `${error.party}: ${error.title}`));
    }
    const node = el("div", { class: `turn ${["assistant", "user", "tool"].includes(one.role) ? one.role : ""}${one.error ? " failed" : ""}`, "data-turn": index },
      el("div", { class: "who" }, ...about));
    if (one.thinking) node.append(el("details", {}, el("summary", {}, "thinking"), el("div", { class: "text" }, ...marked(one.thinking, word))));
    if (one.text) {
      const text = el("div", { class: "text" }, ...marked(one.text, word));
      if (one.role === "tool" && one.text.length > 700) {
        node.append(el("details", { open: word && one.text.toLowerCase().includes(word) ? "" : null },
          el("summary", {}, clean(one.text.slice(0, 160)) + "…"), text));
      } else node.append(text);
    }
    for (const call of one.calls ?? []) {
      node.append(el("div", { class: "call" }, ...marked(`${call.name}(${JSON.stringify(call.arguments ?? {}, null, 1)})`, word)));
    }
    return node;
  }

  function toTurn(pane, index, text) {
    if (index === null || index === undefined) return clean(text);
    return el("a", { href: "#", onclick: (event) => {
      event.preventDefault();
      const target = pane.querySelector(`[data-turn="${index}"]`);
      pane.querySelectorAll(".target").forEach((node) => node.classList.remove("target"));
      target?.classList.add("target");
      target?.scrollIntoView({ block: "center" });
    } }, clean(text));
  }

  function entries(value, list, prefix = "") {
    if (value === null || value === undefined || value === "") return list;
    if (typeof value === "object" && !Array.isArray(value)) {
      for (const [key, part] of Object.entries(value)) entries(part, list, key);
    } else list.append(el("dt", {}, clean(prefix.replaceAll("_", " "))), el("dd", {}, short(value)));
    return list;
  }

  function section(side, title, items) {
    if (items.length) side.append(el("h3", {}, title), el("ul", {}, ...items));
  }

  function pane(row, one, word) {
    const node = el("article", { class: "pane" });
    node.append(el("h2", {}, clean(row.key)));
    const turns = el("div", { class: "turns" }, ...one.turns.map((part, index) => turn(part, index, word, one.errors.filter((error) => error.turn === index))));
    const side = el("aside", { class: "side" });
    const parts = Object.entries(one.parts).map(([name, value]) => (one.basis.length && !one.basis.includes(name)) ? `(${name} ${value})` : `${name} ${value}`);
    side.append(el("div", {}, el("b", { class: row.cause ? "was" : "wanted" }, `reward ${row.reward}`), ` ended as ${clean(row.termination_reason)}`),
      el("div", { class: "fine" }, parts.join("  "), el("br"), `seed ${one.seed}, ${row.duration_s.toFixed(1)} s, ${known(row.cost_usd, dollars)}`));
    if (one.error) side.append(el("p", { class: "was" }, clean(one.error)));
    section(side, "Why reward was lost", one.losses.map((loss) => el("li", { class: "bad" }, el("b", {}, loss.title + ": "), toTurn(node, loss.turn, loss.detail))));
    const lost = one.lost_at === null ? [] : [el("li", { class: "bad" },
      toTurn(node, one.lost_at, `from message ${one.lost_at} on the task could not be solved any more`))];
    section(side, "Whose errors", lost.concat(one.errors.map((error) => el("li", { class: error.major ? "bad" : "idle", title: clean(error.meaning) },
      el("b", {}, `${error.party}, ${error.title}: `), toTurn(node, error.turn, error.detail),
      error.effect === "none" ? "" : ` (${error.effect})`,
      error.quote ? el("div", { class: "fine" }, "“" + clean(error.quote) + "”") : "",
      el("div", { class: "fine" }, `found by ${error.source === "rules" ? "rules" : "the reviewer"}${error.votes ? `, ${error.votes} votes` : ""}${error.major ? "" : ", minor"}`)))));
    section(side, "Gold actions", one.gold.map((gold) => el("li", { class: gold.matched ? "ok" : gold.matters ? "bad" : "idle" },
      toTurn(node, gold.turn, `${gold.name}(${JSON.stringify(gold.arguments)})`), gold.by === "user" ? " by the customer" : "",
      gold.matched ? "" : el("div", { class: "was" }, gold.calls ? "called with " + clean((gold.differing ?? []).join("; ") || "the same arguments, compared otherwise") : "never called"))));
    section(side, "Facts to tell", one.facts.map((fact) => el("li", { class: fact.met ? "ok" : "bad" }, toTurn(node, fact.turn, fact.text))));
    section(side, "Assertions", one.assertions.map((check) => el("li", { class: check.met ? "ok" : "bad" }, clean(check.text), check.why ? el("div", { class: "fine" }, clean(check.why)) : "")));
    section(side, "Database differences", one.differences.map((difference) => el("li", { class: "bad" },
      clean(`${difference.side ?? ""} ${difference.table ?? ""}/${difference.key ?? ""} ${difference.field ?? ""}`), ": ",
      el("span", { class: "was" }, short(difference.actual)), " instead of ", el("span", { class: "wanted" }, short(difference.expected)))));
    if (one.more_differences) side.append(el("p", { class: "fine" }, `and ${one.more_differences} more`));
    if (one.task) side.append(el("h3", {}, "What the customer wants"), entries(one.task, el("dl")));
    if (Object.keys(one.notes).length) side.append(el("h3", {}, "Notes"), entries(one.notes, el("dl")));
    node.append(turns, side);
    return node;
  }

  let open = null, beside = null;
  async function show(row, other = null) {
    open = row; beside = other;
    const word = $("search").value.trim().toLowerCase();
    const wanted = [row, ...(other ? [other] : [])];
    const ready = await Promise.all(wanted.map(conversation));
    if (open !== row) return;
    $("front").hidden = true;
    $("conversation").hidden = false;
    $("panes").className = other ? "two" : "";
    $("panes").replaceChildren(...wanted.map((one, index) => pane(one, ready[index], word)));
    const place = shown.indexOf(row);
    $("previous").disabled = place <= 0;
    $("next").disabled = place < 0 || place >= shown.length - 1;
    const siblings = rows.filter((one) => one.id === row.id && one !== row);
    $("others").replaceChildren(...(siblings.length ? ["beside: "] : []), ...siblings.slice(0, 16).flatMap((one) => [
      el("a", { href: "#" + encodeURIComponent(row.key) + "&" + encodeURIComponent(one.key) }, `${several ? clean(one.run) + " " : ""}trial ${one.trial}${one.cause ? " ✗" : " ✓"}`), " "]));
    document.title = clean(row.key);
    window.scrollTo(0, 0);
  }

  function step(by) {
    const place = shown.indexOf(open);
    const next = shown[place + by];
    if (open && next) location.hash = "#" + encodeURIComponent(next.key);
  }

  function route() {
    const hash = location.hash.slice(1);
    const [first, second] = hash.split("&").map(decodeURIComponent);
    const row = byKey.get(first);
    if (row) return void show(row, byKey.get(second) ?? null);
    open = null;
    $("conversation").hidden = true;
    $("front").hidden = false;
    if (hash.startsWith("?")) {
      const wanted = new URLSearchParams(hash.slice(1));
      $("by-cause").value = wanted.get("cause") ?? "";
      $("by-fault").value = wanted.get("fault") ?? "";
      limit = STEP;
      update();
      $("table").scrollIntoView();
    } else if (hash) document.getElementById(hash === "simulations" ? "table" : hash)?.scrollIntoView();
  }

  function theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  }

  async function start() {
    $("theme").hidden = false;
    $("theme").addEventListener("click", theme);
    rows = inFolder ? await unpack(await loadScript("data/rows.js")) : await unpack($("rows").textContent);
    byKey = new Map(rows.map((row) => [row.key, row]));
    options($("by-domain"), rows.map((row) => row.domain));
    options($("by-cause"), rows.flatMap((row) => row.causes.split(" ")));
    options($("by-fault"), rows.map((row) => row.fault));
    options($("by-ending"), rows.map((row) => row.termination_reason));
    $("filters").hidden = false;
    $("simulations").classList.add("sortable");
    for (const head of document.querySelectorAll("#simulations th[data-sort]")) {
      head.addEventListener("click", () => {
        sort = { by: head.dataset.sort, down: sort.by === head.dataset.sort ? !sort.down : false };
        update();
      });
    }
    let pending = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(pending);
      if (!indexed && !pending) readTexts();
      pending = setTimeout(() => { limit = STEP; update(); }, 60);
    });
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["by-domain", "by-outcome", "by-cause", "by-fault", "by-ending", "by-trial", "by-replies"]) {
      $(id).addEventListener("input", () => { limit = STEP; update(); });
    }
    $("more").addEventListener("click", () => { limit += STEP; draw(); });
    $("previous").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
    addEventListener("keydown", (event) => {
      if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "/") { event.preventDefault(); if (open) location.hash = "#table"; $("search").focus(); }
      else if (event.key === "j" || event.key === "ArrowRight") step(1);
      else if (event.key === "k" || event.key === "ArrowLeft") step(-1);
      else if (event.key === "Escape" && open) location.hash = "#table";
    });
    addEventListener("hashchange", route);
    update();
    route();
    performance.mark("ready");
    document.documentElement.dataset.ready = "yes";
    if (!inFolder) (window.requestIdleCallback ?? setTimeout)(readTexts);
  }

  start().catch((error) => {
    document.documentElement.dataset.failed = String(error);
    document.querySelector("main").prepend(el("p", { class: "notice" }, "The conversations of this page cannot be read here: " + error.message));
  });
})();
