// Sends an image to the API "ocr", and shows its lines: their boxes on the image, their words beside it.

const form = document.querySelector("form");
const label = document.querySelector("label");
const state = document.querySelector("#state");
const shown = document.querySelector("main");
const picture = document.querySelector("img");
const boxes = document.querySelector("svg");
const words = document.querySelector("ol");
let latest = 0;

form.addEventListener("change", () => read(new FormData(form)));
for (const name of ["dragover", "dragleave", "drop"]) {
  label.addEventListener(name, (event) => {
    event.preventDefault();
    label.classList.toggle("over", name === "dragover");
    const [file] = event.dataTransfer.files;
    if (name !== "drop" || !file) return;
    const dropped = new FormData();
    dropped.set("image", file);
    read(dropped);
  });
}

async function read(data) {
  const turn = ++latest; // an answer to an earlier image is not shown
  shown.hidden = true;
  state.textContent = "Reading …";
  try {
    const answer = await fetch("ocr", { method: "POST", body: data });
    const said = await answer.json();
    if (turn !== latest) return;
    if (!answer.ok) throw new Error(said.errors?.[0]?.msg ?? said.detail);
    await show(data.get("image"), said);
    state.textContent = said.length === 1 ? "1 line" : `${said.length} lines`;
  } catch (error) {
    if (turn === latest) state.textContent = `It could not be read: ${error.message}`;
  }
}

async function show(file, lines) {
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  await picture.decode();
  boxes.setAttribute("viewBox", `0 0 ${picture.naturalWidth} ${picture.naturalHeight}`);
  const drawn = lines.map(({ box, text, score }) => {
    const polygon = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
    polygon.setAttribute("points", box.map((corner) => corner.join(",")).join(" "));
    const item = document.createElement("li");
    item.textContent = text;
    item.title = `${Math.round(100 * score)} % sure`;
    for (const element of [polygon, item]) {
      for (const name of ["mouseenter", "mouseleave"]) {
        element.addEventListener(name, () => {
          for (const each of [polygon, item]) each.classList.toggle("at", name === "mouseenter");
        });
      }
    }
    return [polygon, item];
  });
  boxes.replaceChildren(...drawn.map(([polygon]) => polygon));
  words.replaceChildren(...drawn.map(([, item]) => item));
  shown.hidden = false;
}
