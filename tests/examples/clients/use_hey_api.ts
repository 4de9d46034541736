import { client } from "./client/client.gen.js";
import * as api from "./client/index.js";

client.setConfig({ baseUrl: process.argv[2] });
const check = (name: string, got: unknown, expected: unknown) => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
  if (a !== b) { console.log(`${name}: ${a}, not ${b}`); process.exitCode = 1; }
};
const file = new Blob(["abc"], { type: "image/png" });
const scores = await api.scores({ path: { user: "a/b c", day: "2024-02-29" }, query: { limit: 3, tags: ["x", "y z"], colour: "blue" } });
check("scores", scores.data ?? scores.error, { user: "a/b c", day: "2024-02-29", limit: 3, descending: false, tags: ["x", "y z"], since: null, colour: "blue", order: "up" });
check("put", (await api.put({ path: { number: 5 }, query: { dry: true }, body: { name: "tea", price: 2 } })).data?.name, "tea");
check("change", (await api.change({ path: { number: 5 }, body: { price: 3 } })).data, [5, 3]);
check("remove", (await api.remove({ path: { number: 10 } })).error?.title, "No Such Item");
check("shapes", (await api.shapes({ body: { shapes: [{ type: "circle", radius: 2 }] } })).data, { type: "circle", radius: 2 });
check("person", (await api.person({ body: { person: { name: "Ada", born: "1815-12-10" }, level: 2 } })).data?.born, "1815-12-10");
check("file", (await api.file({ body: { data: file, name: "5", times: 2 } })).data, [3, "5", 2]);
const form = await api.form({ body: { pages: [file, file], title: "on", words: ["a", "b"], item: { name: "tea", price: 1 } } });
check("form", form.data ?? form.error, [[3, 3], "on", "tea", ["a", "b"]]);
const raw = await api.upload({ path: { name: "a b" }, query: { tags: ["x", "y"] }, body: file });
check("upload", raw.data ?? raw.error, ["a b", 3, ["x", "y"]]);
const lines = await api.count({ body: { to: 2 }, parseAs: "text" });
check("count", String(lines.data).trim().split("\n").map((line) => JSON.parse(line).name), ["0", "1"]);
const turned = await api.turned({ body: { image: file } });
check("turned", [turned.response?.status, turned.error?.errors?.[0].loc], [422, ["image"]]);
