// Builds the fields of a form from JSON Schema. Every field has an `element`, `text()`, which gives its value as JSON text
// (or undefined to leave it out; as text, long integers keep every digit), and `complain(path, message)`.

import { describe, kind } from "./schema.js";

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const INTEGER = /^-?(0|[1-9]\d*)$/;
let count = 0;

// Raised when what was typed is no value of the field's type; `input` is where to put the cursor.
export class FieldError extends Error {
  constructor(message, input) {
    super(message);
    this.input = input;
  }
}

// Makes an element: attributes by name, children as nodes or text.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

// Returns the field for one parameter. `schemas` follows references, `depth` counts the groups and lists around it.
export function field(name, rawSchema, required, schemas, depth = 0) {
  const schema = schemas.resolve(rawSchema);
  const makers = { list: List, group: Group };
  const Maker = makers[kind(schema, depth, schemas)] ?? Single;
  return new Maker(name, schema, required, schemas, depth);
}

class Single {
  constructor(name, schema, required, schemas, depth) {
    this.schema = schema;
    this.required = required;
    this.kind = kind(schema, depth, schemas);
    const id = `field-${(count += 1)}`;
    this.input = this.control();
    this.input.id = id;
    this.input.setAttribute("aria-describedby", `${id}-about ${id}-wrong`);
    if (required) this.input.setAttribute("aria-required", "true");
    this.wrong = make("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
    this.element = make(
      "div", { class: `field field-${this.kind}` },
      make("label", { for: id }, make("span", { class: "name" }, name), ...note(schema, required, schemas)),
      this.input,
      make("p", { class: "about", id: `${id}-about`, hidden: !schema.description }, schema.description ?? ""),
      this.wrong,
    );
    this.input.addEventListener("input", () => this.complain([], ""));
    if (this.kind === "bytes") this.input.addEventListener("change", () => this.read());
  }

  control() {
    const { schema } = this;
    const example = schema.examples?.[0] ?? schema.example;
    const hint = schema.default !== undefined ? `${JSON.stringify(schema.default)} if left empty` : "";
    const shared = { placeholder: hint, spellcheck: "false", autocomplete: "off" };
    if (this.kind === "choice") return select("const" in schema ? [schema.const] : schema.enum, this.required);
    if (this.kind === "boolean") return select([true, false], this.required);
    if (this.kind === "bytes") return make("input", { type: "file" });
    if (this.kind === "number") return filled(make("input", { ...shared, type: "text", inputmode: "decimal" }), example);
    if (this.kind === "string") return filled(make("textarea", { ...shared, rows: 1 }), example);
    const json = make("textarea", { ...shared, rows: 3, class: "code", placeholder: hint || "JSON" });
    return filled(json, example === undefined ? undefined : JSON.stringify(example));
  }

  // Reads the file that was chosen: JSON carries bytes as base64.
  read() {
    this.encoded = null;
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      this.encoded = reader.result.slice(reader.result.indexOf(",") + 1);
      this.input.dispatchEvent(new Event("input", { bubbles: true }));
    });
    if (this.input.files.length) reader.readAsDataURL(this.input.files[0]);
  }

  text() {
    if (this.kind === "bytes") return this.bytes();
    const typed = this.kind === "string" ? this.input.value : this.input.value.trim();
    if (typed === "") return this.empty();
    if (this.kind === "choice" || this.kind === "boolean") return typed;
    if (this.kind === "string") return JSON.stringify(typed);
    if (this.kind === "number") return this.number(typed);
    try {
      JSON.parse(typed);
    } catch (error) {
      throw this.refuse(`This is not JSON: ${error.message}`);
    }
    return typed;
  }

  bytes() {
    if (!this.input.files.length) return this.required ? '""' : undefined;
    if (this.encoded === null) throw this.refuse("The file is still being read.");
    return JSON.stringify(this.encoded);
  }

  empty() {
    if (!this.required) return undefined;
    if (this.kind === "string") return '""';
    if (this.schema.nullable) return "null";
    throw this.refuse("A value is needed here.");
  }

  number(typed) {
    if (this.schema.type === "integer" && !INTEGER.test(typed)) throw this.refuse("A whole number is needed here.");
    if (!NUMBER.test(typed)) throw this.refuse("A number is needed here, such as 12 or 0.5.");
    return typed;
  }

  refuse(message) {
    this.complain([], message);
    return new FieldError(message, this.input);
  }

  complain(path, message) {
    this.wrong.textContent = message;
    this.wrong.hidden = !message;
    message ? this.input.setAttribute("aria-invalid", "true") : this.input.removeAttribute("aria-invalid");
    return true;
  }
}

class Group {
  constructor(name, schema, required, schemas, depth) {
    this.required = required && !schema.nullable;
    this.nullable = required && schema.nullable;
    const needed = new Set(schema.required ?? []);
    this.fields = Object.entries(schema.properties).map(
      ([key, part]) => [key, field(key, part, needed.has(key), schemas, depth + 1)],
    );
    this.sent = make("input", { type: "checkbox", checked: this.required });
    const inside = make("div", { class: "inside", hidden: !this.required }, ...this.fields.map(([, part]) => part.element));
    this.sent.addEventListener("change", () => { inside.hidden = !this.sent.checked; });
    const words = [make("span", { class: "name" }, name), ...note(schema, required, schemas)];
    const legend = this.required ? words : [make("label", { class: "sent" }, this.sent, ...words)];
    const about = schema.description ? make("p", { class: "about" }, schema.description) : null;
    this.element = make("fieldset", {}, make("legend", {}, ...legend), about, inside);
  }

  text() {
    if (!this.sent.checked) return this.nullable ? "null" : undefined;
    const members = this.fields.map(([key, part]) => [key, part.text()]).filter(([, text]) => text !== undefined);
    return `{${members.map(([key, text]) => `${JSON.stringify(key)}: ${text}`).join(", ")}}`;
  }

  complain([key, ...path], message) {
    const found = this.fields.find(([name]) => name === String(key));
    return Boolean(found?.[1].complain(path, message));
  }
}

class List {
  constructor(name, schema, required, schemas, depth) {
    Object.assign(this, { name, schema, required, schemas, depth, items: [] });
    this.body = make("div", { class: "items" });
    const add = make("button", { type: "button", class: "quiet" }, "Add an item");
    add.addEventListener("click", () => focus(this.add()));
    const legend = make("legend", {}, make("span", { class: "name" }, name), ...note(schema, required, schemas));
    const about = schema.description ? make("p", { class: "about" }, schema.description) : null;
    this.element = make("fieldset", { class: "list" }, legend, about, this.body, add);
    const items = Math.max(schema.minItems ?? 0, required ? 1 : 0);
    for (let at = 0; at < Math.min(items, 16); at += 1) this.add();
  }

  add() {
    const item = field("item", this.schema.items, true, this.schemas, this.depth + 1);
    const label = `Remove this item of ${this.name}`;
    const remove = make("button", { type: "button", class: "quiet", "aria-label": label }, "Remove");
    const row = make("div", { class: "item" }, item.element, remove);
    remove.addEventListener("click", () => {
      row.remove();
      this.items.splice(this.items.indexOf(item), 1);
    });
    this.items.push(item);
    this.body.append(row);
    return row;
  }

  text() {
    if (!this.items.length && !this.required) return undefined;
    return `[${this.items.map((item) => item.text()).join(", ")}]`;
  }

  complain([at, ...path], message) {
    return Boolean(this.items[at]?.complain(path, message));
  }
}

function note(schema, required, schemas) {
  const about = make("span", { class: "type" }, describe(schema, schemas));
  return [about, make("span", { class: required ? "required" : "optional" }, required ? "required" : "optional")];
}

function select(values, required) {
  const rest = required ? [] : [make("option", { value: "" }, "—")];
  const word = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const options = values.map((value) => make("option", { value: JSON.stringify(value) }, word(value)));
  return make("select", {}, ...rest, ...options);
}

function filled(input, value) {
  if (value !== undefined) input.value = String(value);
  return input;
}

function focus(row) {
  row.querySelector("input, select, textarea, button")?.focus();
}
