// The page: reads this server's description and lays out a form for each API.

import { Operation } from "./operation.js";
import { Schemas } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

function layOutPage(description) {
  const schemas = new Schemas(description);
  const { version, description: about } = description.info ?? {};
  show("version", version === "0" ? "" : version); // what the document has to say where the service says nothing
  show("description", about);
  const operations = Object.entries(description.paths ?? {}).flatMap(([path, item]) => {
    const methods = METHODS.filter((method) => item[method]);
    return methods.map((method) => new Operation(path, method, item[method], schemas));
  });
  document.getElementById("operations").append(...operations.map((operation) => operation.element));
  show("notice", operations.length ? "" : "This service has no API.");
  const first = document.getElementById(decodeURIComponent(location.hash.slice(1))) ?? operations[0]?.element;
  if (first) first.open = true;
  search(operations);
}

function show(id, words) {
  const element = document.getElementById(id);
  element.textContent = words ?? "";
  element.hidden = !words;
}

function search(operations) {
  const label = document.getElementById("search");
  label.hidden = operations.length < 6;
  label.querySelector("input").addEventListener("input", ({ target }) => {
    const wanted = target.value.trim().toLowerCase();
    for (const { element, path, described } of operations) {
      element.hidden = !`${path} ${described.summary ?? ""}`.toLowerCase().includes(wanted);
    }
  });
}

try {
  const response = await fetch(new URL("openapi.json", new URL(".", document.baseURI)));
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  layOutPage(await response.json());
} catch (error) {
  show("notice", `The description could not be read: ${error.message}`);
}
