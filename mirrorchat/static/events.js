// Reads server-sent events from the body of a response while they arrive.

import { reach, Refusal } from "./server.js";

const SILENCE_LIMIT_MS = 30_000; // the server sends a sign of life every two seconds

/** Yield {name, data} for each event until the body ends. Comments are ignored. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await inTime(reach(reader.read()));
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const event = eventIn(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have ended already
  }
}

/** Wait for `promise`, at most for the longest silence of the server. */
function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Refusal("broken_off")), SILENCE_LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function eventIn(block) {
  const fields = new Map();
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 2));
  }
  return fields.has("data") ? { name: fields.get("event"), data: JSON.parse(fields.get("data")) } : null;
}
