// Shows an answer: its status and time, then JSON laid out, a stream item by item, text, an image, or a file to keep.

import { JSON_TYPE } from "./body.js";
import { make } from "./fields.js";
import { coloured } from "./json.js";

const LONGEST_SHOWN = 200_000; // characters of one text; the rest is in the file to keep
const MOST_ITEMS_SHOWN = 1000;
const STREAMS = /^(text\/event-stream|application\/(x-ndjson|ndjson|jsonl|x-jsonlines|jsonlines|json-seq|stream\+json))/;
const TEXT_TYPE = /^(text\/|application\/(xml|yaml|x-yaml))/;

export class Answer {
  constructor() {
    this.status = make("p", { class: "status", role: "status" });
    this.body = make("div", { class: "body" });
    this.element = make("section", { class: "answer", "aria-label": "Answer", hidden: true }, this.status, this.body);
  }

  // Says what is going on before there is an answer, or why there is none.
  say(words, state = "busy") {
    this.element.hidden = false;
    this.element.dataset.state = state;
    this.status.replaceChildren(words);
    this.body.replaceChildren();
  }

  // Shows a response while it arrives; resolves when it is complete. Returns the problem, if it is one.
  async show(response, started) {
    const type = response.headers.get("content-type") ?? "";
    this.element.dataset.state = response.ok ? "good" : "bad";
    if (STREAMS.test(type)) return this.stream(response, started, type);
    const bytes = new Uint8Array(await response.arrayBuffer());
    this.head(response, started, size(bytes.length));
    if (JSON_TYPE.test(type)) return this.json(bytes, type);
    if (TEXT_TYPE.test(type)) this.body.replaceChildren(...texts(decode(bytes)), keep([bytes], type));
    else if (bytes.length) this.body.replaceChildren(...picture(bytes, type), keep([bytes], type));
    return undefined;
  }

  head(response, started, extent) {
    const took = performance.now() - started;
    const time = took < 1000 ? `${Math.round(took)} ms` : `${(took / 1000).toFixed(2)} s`;
    const retry = response.headers.get("retry-after");
    const facts = [time, extent, retry && `try again after ${retry} s`].filter(Boolean);
    const code = make("strong", {}, `${response.status} ${response.statusText}`.trim());
    this.status.replaceChildren(code, ...facts.map((fact) => make("span", {}, fact)));
  }

  json(bytes, type) {
    const text = decode(bytes);
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      this.body.replaceChildren(...texts(text));
      return undefined;
    }
    const isProblem = type.startsWith("application/problem+json");
    if (isProblem) this.body.replaceChildren(problem(value), details("Answer as it came", block(text)));
    else this.body.replaceChildren(...(text.length > LONGEST_SHOWN ? texts(text) : [block(text)]), keep([bytes], type));
    return isProblem ? value : undefined;
  }

  async stream(response, started, type) {
    const list = make("ol", { class: "stream" });
    const bytes = [];
    let items = 0;
    const item = (text) => {
      items += 1;
      if (items <= MOST_ITEMS_SHOWN) list.append(make("li", {}, looksLikeJson(text) ? coloured(text, false) : text));
    };
    const tell = (end) => this.head(response, started, `${items} ${items === 1 ? "item" : "items"}${end}`);
    this.body.replaceChildren(list);
    tell(" so far");
    try {
      for await (const text of split(chunks(response, bytes), type.startsWith("text/event-stream"))) {
        item(text);
        tell(" so far");
      }
      tell("");
    } catch (error) {
      if (!list.isConnected) return; // the form was sent again
      this.element.dataset.state = "bad";
      tell(`, then ${error.name === "AbortError" ? "stopped by you" : "the connection broke"}`);
    }
    if (items > MOST_ITEMS_SHOWN) this.body.append(make("p", {}, `The first ${MOST_ITEMS_SHOWN} are shown.`));
    this.body.append(keep(bytes, type));
  }
}

async function* chunks(response, bytes) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    bytes.push(value);
    yield decoder.decode(value, { stream: true });
  }
}

// Cuts text into items: lines, or events, whose `data:` lines are joined.
async function* split(parts, events) {
  const end = events ? /\r?\n\r?\n/ : /\r?\n/;
  let rest = "";
  for await (const part of parts) {
    const found = (rest + part).split(end);
    rest = found.pop();
    for (const text of found) yield* words(text, events);
  }
  yield* words(rest, events);
}

function* words(text, events) {
  const value = events ? event(text) : text.replace(/^\x1e/, "").trim();
  if (value) yield value;
}

function event(text) {
  const lines = text.split(/\r?\n/);
  const after = (name) => lines.filter((line) => line.startsWith(name)).map((line) => line.slice(name.length).trim());
  const [name] = after("event:");
  const data = after("data:").join("\n");
  return name ? `${name}: ${data}` : data;
}

function problem(value) {
  const type = value.type === "about:blank" ? null : value.type;
  const facts = [["Service", value.service], ["Request", value.request_id], ["Type", type]].filter(([, fact]) => fact);
  const errors = (value.errors ?? []).map(
    ({ loc, msg }) => make("li", {}, make("code", {}, [loc].flat().join(".")), ` ${msg}`),
  );
  return make(
    "div", { class: "problem" },
    make("h3", {}, value.title ?? "Error"),
    value.detail ? make("p", {}, value.detail) : null,
    errors.length ? make("ul", {}, ...errors) : null,
    make("dl", {}, ...facts.flatMap(([name, fact]) => [make("dt", {}, name), make("dd", {}, String(fact))])),
  );
}

function block(text) {
  return make("pre", { tabindex: 0 }, coloured(text));
}

function texts(text) {
  const shown = make("pre", { tabindex: 0 }, text.slice(0, LONGEST_SHOWN));
  return text.length > LONGEST_SHOWN ? [shown, make("p", {}, "Only the beginning is shown.")] : [shown];
}

function picture(bytes, type) {
  if (!type.startsWith("image/")) return [];
  return [make("img", { src: URL.createObjectURL(new Blob([bytes], { type })), alt: "The answer, an image" })];
}

function keep(parts, type) {
  const blob = new Blob(parts, { type });
  const extension = JSON_TYPE.test(type) ? "json" : (/^(?:image|text)\/([a-z]+)/.exec(type)?.[1] ?? "bin");
  const link = make("a", { class: "keep", href: "#", download: `answer.${extension}` }, `Keep as a file (${size(blob.size)})`);
  // The URL is made when it is asked for: one that is made for each answer would hold its bytes for ever.
  link.addEventListener("click", () => { link.href = URL.createObjectURL(blob); }, { once: true });
  return link;
}

export function details(summary, ...children) {
  return make("details", { class: "more" }, make("summary", {}, summary), ...children);
}

function decode(bytes) {
  return new TextDecoder().decode(bytes);
}

function looksLikeJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
