// The parameters of an API that are in its URL: parts of the path, and the query.

import { JSON_TYPE } from "./body.js";
import { field, make } from "./fields.js";
import { words } from "./json.js";

// Returns the part of the form for them, or null where there are none.
export function query(parameters, schemas) {
  const described = (parameters ?? []).map((one) => schemas.resolve(one)).filter((one) => ["path", "query"].includes(one.in));
  return described.length ? new Query(described, schemas) : null;
}

class Query {
  constructor(described, schemas) {
    this.fields = described.map((one) => ({
      name: one.name,
      place: one.in,
      isJson: Boolean(one.content),
      field: field(one.name, about(one), Boolean(one.required), schemas),
    }));
    this.element = make("div", {}, ...this.fields.map((one) => one.field.element));
  }

  // Returns a path with its parameters in it. Raises FieldError when a field does not hold a value of its type.
  fill(path) {
    return path.replace(/\{([^{}]+)\}/g, (whole, name) => {
      const found = this.fields.find((one) => one.place === "path" && one.name === name);
      if (!found) return whole;
      const [said = ""] = words(found.field.text());
      if (["", ".", ".."].includes(said)) throw found.field.refuse("A part of a path is needed here.");
      return encodeURIComponent(said);
    });
  }

  // Adds the others to a URL. Raises FieldError when a field does not hold a value of its type.
  addTo(url) {
    for (const { name, place, isJson, field: one } of this.fields) {
      const text = place === "query" ? one.text() : undefined;
      for (const said of isJson && text !== undefined ? [text] : words(text)) url.searchParams.append(name, said);
    }
  }

  // Puts a complaint of the server at its field; `place` leads there too, where the URL was read as one.
  complain([place, ...path], message) {
    const inUrl = this.fields.find((one) => one.place === place && one.name === path[0]);
    const found = inUrl ?? this.fields.find((one) => one.name === place);
    found?.field.complain(inUrl ? path.slice(1) : path, message);
  }
}

function about(one) {
  const json = Object.entries(one.content ?? {}).find(([type]) => JSON_TYPE.test(type));
  const schema = json?.[1].schema ?? one.schema ?? {};
  return one.description ? { description: one.description, ...schema } : schema;
}
