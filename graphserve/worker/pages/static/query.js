// The parameters of an API that stand in the URL's query, since its body is a stream. Each is sent as JSON.

import { JSON_TYPE } from "./body.js";
import { field, make } from "./fields.js";

// Returns the part of the form for them, or null where there are none.
export function query(parameters, schemas) {
  const described = (parameters ?? []).map((one) => schemas.resolve(one)).filter((one) => one.in === "query");
  return described.length ? new Query(described, schemas) : null;
}

class Query {
  constructor(described, schemas) {
    this.fields = described.map(
      (one) => [one.name, field(one.name, about(one), Boolean(one.required), schemas)],
    );
    this.element = make("div", {}, ...this.fields.map(([, one]) => one.element));
  }

  // Adds them to a URL. Raises FieldError when a field does not hold a value of its type.
  addTo(url) {
    for (const [name, one] of this.fields) {
      const text = one.text();
      if (text !== undefined) url.searchParams.append(name, text);
    }
  }

  // Puts a complaint of the server at its field.
  complain([name, ...path], message) {
    this.fields.find(([one]) => one === name)?.[1].complain(path, message);
  }
}

function about(one) {
  const json = Object.entries(one.content ?? {}).find(([type]) => JSON_TYPE.test(type));
  const schema = json?.[1].schema ?? one.schema ?? {};
  return one.description ? { description: one.description, ...schema } : schema;
}
