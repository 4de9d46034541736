import createClient from "openapi-fetch";
import type { paths } from "./types.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const check = (name: string, got: unknown, expected: unknown) => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
  if (a !== b) { console.log(`${name}: ${a}, not ${b}`); process.exitCode = 1; }
};

const scores = await client.GET("/users/{user}/scores/{day}", {
  params: { path: { user: "a/b c", day: "2024-02-29" }, query: { limit: 3, descending: true, tags: ["x", "y z"], colour: "blue", order: "down", since: "2024-01-01T00:00:00Z" } },
});
check("scores", scores.data ?? scores.error, { user: "a/b c", day: "2024-02-29", limit: 3, descending: true, tags: ["x", "y z"], since: "2024-01-01T00:00:00+00:00", colour: "blue", order: "down" });
const item = { name: "tea", price: 2, tags: ["t"] };
const put = await client.PUT("/items/{number}", { params: { path: { number: 5 }, query: { dry: true } }, body: item });
check("put", put.data?.name ?? put.error, "tea");
const change = await client.PATCH("/items/{number}", { params: { path: { number: 5 } }, body: { price: 3, colour: "red" } });
check("change", change.data ?? change.error, [5, 3]);
const removed = await client.DELETE("/items/{number}", { params: { path: { number: 10 } } });
check("removed", [removed.response.status, removed.error?.title], [404, "No Such Item"]);
check("get", (await client.GET("/either", { params: { query: { value: 4 } } })).data, 4);
check("post", (await client.POST("/either", { body: { value: 5 } })).data, 5);
const shapes = await client.POST("/shapes", { body: { shapes: [{ type: "circle", radius: 2 }, { type: "square", side: 1 }] } });
check("shapes", shapes.data ?? shapes.error, { type: "circle", radius: 2 });
if (shapes.data?.type === "circle") shapes.data.radius satisfies number;
const person = await client.POST("/person", { body: { person: { name: "Ada", born: "1815-12-10" }, level: 2, mixed: "x" } });
check("person", person.data ?? person.error, { name: "Ada", born: "1815-12-10", id: null });
const at = "2024-01-01T00:00:00Z";
const times = await client.POST("/times", { body: { at, day: "2024-01-01", hour: "10:00:00", length: "PT1S", id: "12345678-1234-5678-1234-567812345678" } });
check("times", times.data ?? times.error, { at });
check("matrix", (await client.POST("/matrix", { body: { rows: [[1, 2], [3, 4]] } })).data, [[2, 4], [6, 8]]);
check("nothing", (await client.POST("/nothing", { body: {} })).data, null);
check("wrong", (await client.POST("/either", { body: { value: "x" as unknown as number } })).error?.errors?.[0].loc, ["value"]);

// files
const file = new Blob(["abc"], { type: "image/png" });
const serializer = (body: unknown) => {
  const form = new FormData();
  for (const [name, value] of Object.entries(body as object)) for (const each of Array.isArray(value) ? value : [value]) form.append(name, each as string | Blob);
  return form;
};
const sent = await client.POST("/file", { body: { data: file as unknown as string, name: "5", times: 2 }, bodySerializer: serializer });
check("file", sent.data ?? sent.error, [3, "5", 2]);
const form = await client.POST("/form", { body: { pages: [file, file] as unknown as string[] & string, title: "on", words: ["a", "b"] }, bodySerializer: serializer });
check("form", form.data ?? form.error, [[3, 3], "on", null, ["a", "b"]]);
const raw = await client.PUT("/files/{name}", { params: { path: { name: "a b" }, query: { tags: ["x", "y"] } }, body: "abc", bodySerializer: (body) => body, headers: { "Content-Type": "application/octet-stream" } });
check("raw", raw.data ?? raw.error, ["a b", 3, ["x", "y"]]);
const lines = await client.POST("/count", { body: { to: 2 }, parseAs: "text" });
check("lines", lines.data && String(lines.data).trim().split("\n").map((line) => JSON.parse(line).name), ["0", "1"]);
const events = await client.GET("/ticks", { params: { query: { to: 2 } }, parseAs: "stream", headers: { Accept: "text/event-stream" } });
check("events", await new Response(events.data as ReadableStream).text(), "id: 1\ndata: 1\n\nid: 2\ndata: 2\n\nevent: end\ndata:\n\n");
