// Reads JSON Schema as far as a form needs it: follows references, joins parts, tells what kind of field fits.

const DEPTH = 12; // references and groups inside each other; past it, JSON is typed by hand

export class Schemas {
  constructor(document) {
    this.document = document;
  }

  // Returns the schema without $ref, allOf and a choice with null; `nullable` says that null was among the choices.
  resolve(schema, depth = 0) {
    if (typeof schema !== "object" || schema === null || depth > DEPTH) return {};
    const next = (part) => this.resolve(part, depth + 1);
    if (schema.$ref) {
      const { $ref, ...own } = schema;
      return { ...next(this.find($ref)), ...own };
    }
    if (schema.allOf) {
      const { allOf, ...own } = schema;
      return join([...allOf.map(next), own]);
    }
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices) {
      const { anyOf, oneOf, ...own } = schema;
      const some = choices.map(next).filter((choice) => choice.type !== "null");
      const nullable = some.length < choices.length;
      return some.length === 1 ? { ...some[0], ...own, nullable } : { ...own, choices: some, nullable };
    }
    if (Array.isArray(schema.type)) {
      const types = schema.type.filter((type) => type !== "null");
      const nullable = types.length < schema.type.length;
      return { ...schema, type: types.length === 1 ? types[0] : undefined, nullable };
    }
    return schema;
  }

  // Follows a reference inside the document.
  find(reference) {
    if (!reference.startsWith("#/")) return {};
    const plain = (step) => decodeURIComponent(step).replace(/~1/g, "/").replace(/~0/g, "~");
    return reference.slice(2).split("/").map(plain).reduce((part, step) => part?.[step], this.document) ?? {};
  }
}

function join(parts) {
  const whole = Object.assign({}, ...parts);
  const properties = parts.map((part) => part.properties).filter(Boolean);
  if (properties.length) whole.properties = Object.assign({}, ...properties);
  const required = parts.flatMap((part) => part.required ?? []);
  if (required.length) whole.required = required;
  return whole;
}

// Returns which field fits a resolved schema: choice, boolean, number, string, bytes, list, group or json.
export function kind(schema, depth, schemas) {
  if (schema.enum || "const" in schema) return "choice";
  if (schema.type === "string" && schema.contentEncoding === "base64") return "bytes";
  if (schema.type === "boolean" || schema.type === "string") return schema.type;
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "array" && depth < 3 && listed(schema, depth, schemas)) return "list";
  if (schema.type === "object" && schema.properties && depth < 4) return "group";
  return "json";
}

// Whether an array is filled in item by item; lists in lists, as of tensors, are quicker typed as JSON.
function listed(schema, depth, schemas) {
  const item = schemas.resolve(schema.items);
  return !schema.prefixItems && item.type !== "array" && kind(item, depth + 1, schemas) !== "json";
}

// Returns the words that stand beside a field's name, such as "list of integer, up to 8, optional".
export function describe(schema, schemas) {
  const parts = [noun(schema, schemas)];
  if (schema.minimum !== undefined) parts.push(`≥ ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) parts.push(`> ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) parts.push(`≤ ${schema.maximum}`);
  if (schema.exclusiveMaximum !== undefined) parts.push(`< ${schema.exclusiveMaximum}`);
  const longest = schema.maxLength ?? schema.maxItems;
  if (longest !== undefined) parts.push(`up to ${longest}`);
  if (schema.pattern && schema.contentEncoding !== "base64") parts.push(`matches ${schema.pattern}`);
  if (schema.nullable) parts.push("or null");
  return parts.filter(Boolean).join(", ");
}

function noun(schema, schemas) {
  if (schema.type === "array" && schema.items) return `list of ${noun(schemas.resolve(schema.items), schemas) || "values"}`;
  if (schema.choices) return schema.choices.map((choice) => noun(choice, schemas)).filter(Boolean).join(" or ");
  if (schema.enum) return "one of these";
  if (schema.contentEncoding === "base64") return "file";
  return schema.format ?? schema.type ?? "";
}
