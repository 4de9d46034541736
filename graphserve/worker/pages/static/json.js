// Lays out JSON text with colours. It works on the text, not on parsed values: numbers keep all their digits.

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const INDENT = "  ";

// Returns JSON text with line breaks and indents; with `wide` false on one line.
export function layOut(text, wide = true) {
  return pieces(text, wide).map(([piece]) => piece).join("");
}

// Returns a fragment with the JSON laid out and its keys, strings and other values marked for CSS.
export function coloured(text, wide = true) {
  const fragment = document.createDocumentFragment();
  for (const [piece, mark] of pieces(text, wide)) {
    if (!mark) {
      fragment.append(piece);
      continue;
    }
    const span = document.createElement("span");
    span.className = mark;
    span.textContent = piece;
    fragment.append(span);
  }
  return fragment;
}

function pieces(text, wide) {
  const tokens = text.match(TOKEN) ?? [];
  const out = [];
  let depth = 0;
  const line = () => out.push([wide ? `\n${INDENT.repeat(depth)}` : "", ""]);
  tokens.forEach((token, at) => {
    const before = tokens[at - 1];
    if (token === "}" || token === "]") {
      depth -= 1;
      if (before !== "{" && before !== "[") line();
    } else if (before === "{" || before === "[") {
      line();
    }
    if (token === "{" || token === "[") depth += 1;
    out.push([token, mark(token, tokens[at + 1])]);
    if (token === ",") wide ? line() : out.push([" ", ""]);
    if (token === ":") out.push([" ", ""]);
  });
  return out;
}

function mark(token, after) {
  if (token.startsWith('"')) return after === ":" ? "json-key" : "json-string";
  return /^[{}[\],:]$/.test(token) ? "" : "json-value";
}

// Returns how a value in JSON is said by text, in a URL or a form: text as it is, a list item by item, nothing for null.
export function words(text) {
  if (text === undefined || text === "null") return [];
  if (text.startsWith("[")) return JSON.parse(text).map((item) => (typeof item === "string" ? item : JSON.stringify(item)));
  return [text.startsWith('"') ? JSON.parse(text) : text];
}
