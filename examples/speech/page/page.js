// Sends what the microphone hears to the WebSocket "talk", and shows who spoke when as it is told.

const button = document.querySelector("button");
const state = document.querySelector("#state");
const list = document.querySelector("ol");
let stop = null;

button.addEventListener("click", async () => {
  if (stop) return stop();
  button.disabled = true;
  try {
    stop = await listen();
    button.textContent = "Stop";
    say("Listening …");
  } catch (error) {
    say(`It cannot listen: ${error.message}`);
  }
  button.disabled = false;
});

async function listen() {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext({ sampleRate: 16000 }); // it resamples
  const address = new URL("talk", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  const end = () => {
    for (const track of microphone.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
  };
  socket.addEventListener("message", ({ data }) => show(JSON.parse(data)));
  socket.addEventListener("close", ({ code, reason }) => {
    end();
    stop = null;
    button.textContent = "Listen";
    say(code === 1000 ? "The microphone is off." : `It was cut off: ${reason || code}`);
  });
  try {
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("close", () => reject(new Error("the service is not there")));
    });
    await context.audioWorklet.addModule("samples.js");
    const samples = new AudioWorkletNode(context, "samples");
    samples.port.onmessage = ({ data }) => socket.readyState === WebSocket.OPEN && socket.send(data);
    context.createMediaStreamSource(microphone).connect(samples);
  } catch (error) {
    end();
    socket.close();
    throw error;
  }
  return () => {
    end();
    socket.send(new Uint8Array()); // no more comes: what is still open is told, then the service closes
  };
}

function show({ start, end, pitch }) {
  const last = list.lastElementChild;
  const item = last?.classList.contains("now") ? last : list.appendChild(document.createElement("li"));
  item.classList.toggle("now", end === null);
  const voice = pitch === null ? "" : `, a voice of ${pitch} Hz`;
  item.textContent = end === null ? `from ${start.toFixed(1)} s …` : `${start.toFixed(1)} to ${end.toFixed(1)} s${voice}`;
}

function say(text) {
  state.textContent = text;
}
