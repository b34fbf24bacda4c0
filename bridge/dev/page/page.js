// Fills the document with what the server sends: as text, never as markup.
const $ = (selector) => document.querySelector(selector);
const rows = new Map();
let events, opened, timer;

function make(name, text = "", attributes = {}) {
  const element = Object.assign(document.createElement(name), { textContent: text });
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function command(text) {
  const box = make("div"), button = make("button", "Copy", { type: "button", "aria-label": "Copy: " + text });
  button.onclick = () => navigator.clipboard.writeText(text).then(() => { button.textContent = "Copied"; });
  box.append(make("code", text), button);
  return box;
}

function cell(value) {
  if (value?.copy) return value.copy.map(command);
  if (value?.key !== undefined) return [make("a", value.key, { href: "#prescription=" + encodeURIComponent(value.key) })];
  return [make("span", value?.state ?? value, { class: value?.state ?? "" })];
}

function table(section) {
  const found = make("table"), head = found.createTHead().insertRow(), body = found.createTBody();
  head.append(...section.head.map((name) => make("th", name)));
  for (const each of section.rows) {
    const line = body.insertRow();
    for (const value of each) line.insertCell().append(...cell(value));
  }
  return found;
}

// Only sections that changed are made anew: focus and selection stay.
function show(place, sections) {
  sections.forEach((section, number) => {
    const content = JSON.stringify(section), old = place.children[number];
    if (old?.content === content) return;
    const box = Object.assign(make("section"), { content });
    box.append(make("h2", section.title), make("p", section.note, { class: "bad" }));
    if (section.svg) {
      const strip = make("div", "", { class: "strip", tabindex: 0, role: "region", "aria-label": "States over time" });
      strip.append(new DOMParser().parseFromString(section.svg, "image/svg+xml").documentElement);
      box.append(strip);
    } else if (!section.note) box.append(section.rows.length ? table(section) : make("p", "none"));
    if (old) old.replaceWith(box); else place.append(box);
  });
  while (place.children.length > sections.length) place.lastChild.remove();
}

function line(each) {
  const row = make("tr", "", { class: each.outcome }), add = (...content) => row.insertCell().append(...content);
  add(make("button", each.timestamp.slice(11, 23), { type: "button", title: each.timestamp }));
  add(each.source);
  add(make("b", each.status), " " + each.outcome);
  add(make("span", each.type), " ", make("code", [each.code, each.detail, each.field].join(" ")), make("small", each.why));
  add(...cell(each.key));
  add(each.duration_ms);
  row.onclick = (event) => { if (event.target.tagName !== "A") open(each.number); };
  return row;
}

function take(news) {
  const body = $("#deliveries tbody");
  for (const each of news.rows) {
    if (rows.has(each.number)) rows.get(each.number).cells[4].replaceChildren(...cell(each.key));
    else body.prepend(rows.set(each.number, line(each)).get(each.number));
  }
  while (body.children.length > 200) body.lastChild.remove();
  for (const [number, row] of rows) if (!row.isConnected) rows.delete(number);
  $("#count").textContent = `${body.children.length} shown of ${news.total}`;
  $("#parts").replaceChildren(...news.state.parts.map(([name, text, good]) => {
    const item = make("li", name + " ", { class: good ? "good" : "warn" });
    item.append(make("b", text));
    return item;
  }));
  if ($("#alarm").textContent !== news.state.alarm) $("#alarm").textContent = news.state.alarm;
}

function listen() {
  events?.close();
  events = new EventSource("/live?" + new URLSearchParams(new FormData($("#filter"))));
  events.onopen = () => { rows.clear(); $("#deliveries tbody").replaceChildren(); };
  events.onmessage = (event) => take(JSON.parse(event.data));
  events.onerror = () => { $("#alarm").textContent = "The stack does not answer."; };
}

function open(number) {
  opened = number;
  $("#detail > div").replaceChildren();
  $("#detail").showModal();
  look();
}

async function look() { // every second
  const [tab, id] = location.hash.slice(1).split("=");
  const path = opened ? "delivery?id=" + opened : tab === "waiting" ? tab : id && "prescription?id=" + id;
  if (path && document.visibilityState === "visible") {
    const place = $(opened ? "#detail > div" : `#${tab} > div`), answer = await fetch("/" + path).catch(() => undefined);
    if (answer?.ok) show(place, await answer.json());
  }
  clearTimeout(timer);
  timer = setTimeout(look, 1000);
}

function route() {
  const [tab, id] = (location.hash.slice(1) || "live").split("=");
  $("#detail").close();
  for (const each of document.querySelectorAll("main > section")) each.hidden = each.id !== tab;
  for (const link of document.querySelectorAll("nav a")) link.setAttribute("aria-current", link.hash === "#" + tab);
  if (id) $("#find input").value = decodeURIComponent(id);
  look();
}

$("#filter").oninput = listen;
$("#find").onsubmit = (event) => {
  event.preventDefault();
  location.hash = "prescription=" + encodeURIComponent($("#find input").value.trim());
};
$("#detail").onclose = () => { opened = undefined; };
$("#detail button").onclick = () => $("#detail").close();
window.onhashchange = route;
route();
listen();
