// One API on the page: its form, the call it makes, and the answer below it.

import { Answer, details } from "./answer.js";
import { JSON_TYPE, body } from "./body.js";
import { FieldError, make } from "./fields.js";
import { query } from "./query.js";

const BASE = new URL(".", document.baseURI); // whatever prefix the page is served under, the APIs are beside it

export class Operation {
  constructor(path, method, described, schemas) {
    Object.assign(this, { path, method, described, schemas });
    this.query = query(described.parameters, schemas);
    this.body = body(schemas.resolve(described.requestBody), schemas);
    this.answers = accepted(described, schemas);
    this.answer = new Answer();
    this.element = this.card();
  }

  card() {
    const send = make("button", { type: "submit", class: "send" }, "Send");
    this.stop = make("button", { type: "button", class: "quiet", hidden: true }, "Stop");
    this.stop.addEventListener("click", () => this.controller?.abort());
    this.accept = make("select", {}, ...this.answers.map((type) => make("option", {}, type)));
    const choice = this.answers.length > 1 ? make("label", { class: "accept" }, "Answer as ", this.accept) : null;
    const curl = make("pre", { tabindex: 0 });
    const command = details("curl", curl);
    command.addEventListener("toggle", () => { curl.textContent = this.curl(); });
    const form = make(
      "form", { novalidate: true },
      this.query?.element, this.body?.element,
      make("div", { class: "actions" }, send, this.stop, choice), command,
    );
    form.addEventListener("submit", (event) => { event.preventDefault(); this.send(); });
    form.addEventListener("input", () => { if (command.open) curl.textContent = this.curl(); });
    const { operationId, summary, description, deprecated } = this.described;
    // an API without a docstring has only its name to show
    const short = summary === operationId || `${summary}_${this.method}` === operationId ? "" : summary;
    const head = make(
      "summary", {}, make("span", { class: `method method-${this.method}` }, this.method.toUpperCase()),
      make("span", { class: "path" }, this.path), make("span", { class: "short" }, short ?? ""),
      deprecated ? make("span", { class: "chip" }, "deprecated") : null,
    );
    const about = description && description !== summary ? make("p", { class: "description" }, description) : null;
    return make("details", { class: "operation", id: `${this.method}${this.path}` }, head, about, form, this.answer.element);
  }

  // Returns what fetch needs. Raises FieldError when a field does not hold a value of its type.
  request() {
    const path = this.query?.fill(this.path) ?? this.path;
    const url = new URL(path.replace(/^\//, ""), BASE);
    this.query?.addTo(url);
    const headers = new Headers(this.answers.length ? { Accept: this.accept.value } : {});
    const content = this.body?.content();
    if (this.body?.header) headers.set("Content-Type", this.body.header);
    return { url, init: { method: this.method.toUpperCase(), headers, body: content, cache: "no-store" } };
  }

  async send() {
    this.controller?.abort();
    const controller = (this.controller = new AbortController());
    let request;
    try {
      request = this.request();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      error.input.focus();
      return this.answer.say("Not sent: a field needs another value.", "bad");
    }
    this.stop.hidden = false;
    this.answer.say("Waiting for the answer …");
    const started = performance.now();
    try {
      const response = await fetch(request.url, { ...request.init, signal: controller.signal });
      const problem = await this.answer.show(response, started);
      for (const { loc, msg } of problem?.errors ?? []) {
        this.query?.complain(loc, msg);
        this.body?.complain(loc, msg);
      }
    } catch (error) {
      if (controller !== this.controller) return;
      const stopped = error.name === "AbortError";
      this.answer.say(stopped ? "Stopped: the call was cancelled." : `No answer: ${error.message}`, "bad");
    } finally {
      if (controller === this.controller) this.stop.hidden = true;
    }
  }

  curl() {
    const quote = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
    let request;
    try {
      request = this.request();
    } catch (error) {
      return `(${error.message})`;
    }
    const { method, headers } = request.init;
    const parts = [`curl -X ${method} ${quote(request.url.href)}`];
    headers.forEach((value, name) => parts.push(`-H ${quote(`${name}: ${value}`)}`));
    if (this.body) parts.push(...this.body.curl(quote));
    return parts.join(" \\\n  ");
  }
}

// An image is shown, so it comes before its base64.
function rank(type) {
  return type.startsWith("image/") ? 2 : Number(JSON_TYPE.test(type));
}

function accepted(described, schemas) {
  const good = Object.entries(described.responses ?? {}).find(([status]) => status.startsWith("2"));
  return Object.keys(schemas.resolve(good?.[1]).content ?? {}).sort((a, b) => rank(b) - rank(a));
}
