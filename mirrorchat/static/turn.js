// One question and its answer, over the network.

import { eventsOf } from "./events.js";
import { Refusal, refusalOf, request } from "./server.js";

const SESSION_HEADER = "X-MirrorChat-Session";
const BUSY_TRIES = 12; // of a session whose cancelled turn the server has not released yet
const BUSY_PAUSE_MS = 250;

/**
 * Ask a question. Yield `session`, whose data is the id of the session, and then the events of the answer up to `done`.
 *
 * `session` is the present id, or "" for none. A new session replaces one that the server no longer has. Throws a
 * Refusal when the answer fails, and AbortError when `signal` cancels it.
 */
export async function* ask({ recording, language, session, signal }) {
  const response = await post({ recording, language, session, signal });
  yield { name: "session", data: response.headers.get(SESSION_HEADER) ?? "" };
  let whole = false;
  for await (const event of eventsOf(response.body)) {
    if (event.name === "error") throw refusalOf(event.data.error);
    yield event;
    whole ||= event.name === "done";
  }
  if (!whole) throw new Refusal("broken_off");
}

async function post({ recording, language, session, signal }) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request("process_audio", { method: "POST", body: form(recording, language, session), signal });
    } catch (refusal) {
      if (refusal.code === "not_found" && session) session = "";
      else if (refusal.code === "session_busy" && tries < BUSY_TRIES) await pause(signal);
      else throw refusal;
    }
  }
}

function form(recording, language, session) {
  const fields = new FormData();
  fields.set("audio", recording, "question.wav");
  fields.set("language", language);
  fields.set("stream", "true");
  fields.set("response_format", "sse");
  if (session) fields.set("session_id", session);
  return fields;
}

async function pause(signal) {
  await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE_MS));
  signal.throwIfAborted();
}
