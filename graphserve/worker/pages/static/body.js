// The body of a request: JSON by fields or by hand, a form with files in it, or the bytes of a file as they are.

import { field, make } from "./fields.js";
import { layOut, words } from "./json.js";

export const FORM_TYPE = "multipart/form-data";
export const JSON_TYPE = /^application\/([\w.-]+\+)?json\b/;
const LONGEST_COMMAND = 10_000; // characters; a file inside JSON is longer, and no shell wants it

// Returns the part of the form for a request body, or null where there is none.
export function body(described, schemas) {
  const contents = Object.entries(described.content ?? {});
  const json = contents.find(([type]) => JSON_TYPE.test(type));
  const form = contents.find(([type]) => type === FORM_TYPE);
  const raw = contents.find(([type]) => !JSON_TYPE.test(type) && !type.endsWith("msgpack") && type !== FORM_TYPE);
  const bodies = [];
  if (form) bodies.push(new FormBody(form[1].schema ?? {}, schemas));
  if (raw) bodies.push(new RawBody(raw[0], named(json?.[1].schema, schemas)));
  if (json) bodies.push(new JsonBody(json[0], json[1].schema ?? {}, schemas));
  return bodies.length > 1 ? new EitherBody(bodies) : bodies[0] ?? null;
}

// An API of one argument that takes its bytes as they are, takes them as JSON too: there the argument has its name.
function named(schema, schemas) {
  const [[name, argument] = ["body", {}]] = Object.entries(schemas.resolve(schema).properties ?? {});
  return { name, about: schemas.resolve(argument).description };
}

class EitherBody {
  constructor(bodies) {
    this.bodies = bodies;
    this.choice = make("select", {}, ...bodies.map((one) => make("option", {}, one.type)));
    const choose = () => bodies.forEach((one) => { one.element.hidden = one !== this.chosen; });
    this.choice.addEventListener("change", choose);
    const label = make("label", { class: "send-as" }, "Send as ", this.choice);
    this.element = make("div", {}, label, ...bodies.map((one) => one.element));
    choose();
  }

  get chosen() { return this.bodies[this.choice.selectedIndex]; }
  get type() { return this.chosen.type; }
  get header() { return this.chosen.header; }
  content() { return this.chosen.content(); }
  complain(loc, message) { this.chosen.complain(loc, message); }
  curl(quote) { return this.chosen.curl(quote); }
}

class JsonBody {
  constructor(type, schema, schemas) {
    this.type = type;
    this.header = type;
    const whole = schemas.resolve(schema);
    const needed = new Set(whole.required ?? []);
    this.fields = Object.entries(whole.properties ?? {}).map(
      ([name, part]) => [name, field(name, part, needed.has(name), schemas)],
    );
    this.whole = whole.properties || whole.type === "object" ? null : field("body", whole, true, schemas);
    const form = make("div", {}, ...this.fields.map(([, one]) => one.element), this.whole?.element);
    const label = make("label", { class: "field" }, make("span", { class: "unseen" }, "Body as JSON"));
    this.raw = make("textarea", { class: "code", rows: 8, spellcheck: "false" });
    label.append(this.raw);
    label.hidden = true;
    this.toggle = make("input", { type: "checkbox" });
    this.toggle.addEventListener("change", () => {
      form.hidden = this.toggle.checked;
      label.hidden = !this.toggle.checked;
      if (this.toggle.checked) this.raw.value = this.draft();
    });
    const byHand = make("label", { class: "sent", hidden: !this.fields.length }, this.toggle, "Write the body as JSON");
    this.element = make("div", {}, form, label, byHand);
  }

  content() {
    return this.toggle.checked ? this.raw.value : this.text();
  }

  text() {
    if (this.whole) return this.whole.text() ?? "";
    const members = this.fields.map(([name, one]) => [name, one.text()]).filter(([, text]) => text !== undefined);
    return `{${members.map(([name, text]) => `${JSON.stringify(name)}: ${text}`).join(", ")}}`;
  }

  draft() {
    try {
      return layOut(this.text());
    } catch {
      return "{\n  \n}";
    }
  }

  // Puts a complaint of the server at its field; `name` and `path` lead there from the body's top.
  complain([name, ...path], message) {
    this.fields.find(([one]) => one === name)?.[1].complain(path, message);
  }

  curl(quote) {
    const text = this.content();
    return [text.length > LONGEST_COMMAND ? "--data-binary @body.json" : `--data-raw ${quote(text)}`];
  }
}

// A part for each argument: files as they are, all else as text, as in a query.
class FormBody {
  constructor(schema, schemas) {
    this.type = FORM_TYPE;
    this.header = null; // the browser says it, with the boundary
    const whole = schemas.resolve(schema);
    const needed = new Set(whole.required ?? []);
    this.fields = Object.entries(whole.properties ?? {}).map(([name, part]) => {
      const resolved = schemas.resolve(part);
      const several = isBinary(resolved.items && schemas.resolve(resolved.items));
      const isFile = several || isBinary(resolved);
      return [name, isFile ? new FileField(name, resolved, several) : field(name, part, needed.has(name), schemas)];
    });
    this.element = make("div", {}, ...this.fields.map(([, one]) => one.element));
  }

  content() {
    const form = new FormData();
    for (const [name, one] of this.fields) {
      for (const value of one instanceof FileField ? one.files : words(one.text())) form.append(name, value);
    }
    return form;
  }

  complain([name, ...path], message) {
    const [, found] = this.fields.find(([one]) => one === name) ?? [];
    found?.complain(path, message);
  }

  curl(quote) {
    return [...this.content()].map(([name, value]) =>
      value instanceof File ? `-F ${quote(`${name}=@"${value.name}"`)}` : `--form-string ${quote(`${name}=${value}`)}`);
  }
}

class FileField {
  constructor(name, { description }, several) {
    this.input = make("input", { type: "file", multiple: several });
    const words = [make("span", { class: "name" }, name), make("span", { class: "type" }, several ? "files" : "file")];
    this.wrong = make("p", { class: "wrong", hidden: true });
    this.element = make(
      "div", { class: "field" }, make("label", {}, ...words, this.input),
      description ? make("p", { class: "about" }, description) : null, this.wrong,
    );
    this.input.addEventListener("input", () => this.complain([], ""));
  }

  get files() { return [...this.input.files]; }

  complain(path, message) {
    this.wrong.textContent = message;
    this.wrong.hidden = !message;
  }
}

function isBinary(schema) {
  return schema?.format === "binary";
}

class RawBody {
  constructor(type, { name, about }) {
    this.type = type.includes("*") ? "application/octet-stream" : type;
    this.header = this.type;
    this.input = make("input", { type: "file" });
    const words = [make("span", { class: "name" }, name), make("span", { class: "type" }, "file")];
    this.element = make(
      "div", { class: "field" },
      make("label", {}, ...words, this.input), about ? make("p", { class: "about" }, about) : null,
    );
  }

  content() {
    return this.input.files[0] ?? new Blob([]);
  }

  complain() {}

  curl(quote) {
    return [`--data-binary ${quote(`@${this.input.files[0]?.name ?? "FILE"}`)}`];
  }
}
