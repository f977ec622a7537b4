// The page: its states, and the transitions between them.
//
//   loading -> key -> idle -> opening -> recording -> waiting -> speaking -> idle
//
// A new question, or a stop, cancels the present turn. `run` counts turns, so that late results have no effect.

import { LONGEST_S, Recording, SHORTEST_S } from "./capture.js";
import { clearConversation, isEmpty, showEngines, Turn } from "./conversation.js";
import { pageLanguage, say, speak } from "./language.js";
import { clearNotice, showNews, showRefusal } from "./notice.js";
import { Player } from "./player.js";
import { Ring } from "./ring.js";
import { dropKey, hasKey, keepKey, Refusal, request } from "./server.js";
import { makeTalkButton } from "./talk_button.js";
import { ask } from "./turn.js";

const LOADING_PAUSE_MS = 1000;
const QUICK_LIMIT_MS = 30_000; // for quick requests

const at = (id) => document.getElementById(id);
const player = new Player(() => rest());
const ring = new Ring(at("ring"), () => (state === "recording" ? recording.level : player.level));

let state = "loading";
let run = 0;
let recording = null;
let calling = null; // the AbortController of the present turn
let turn = null; // the turn on the page
let session = "";

function become(next) {
  state = next;
  document.body.dataset.state = next;
  say(at("status"), `status.${next}`);
  say(at("talk-label"), next === "recording" ? "talk.send" : "talk.begin");
  at("talk").disabled = next === "loading" || next === "key";
  at("talk").setAttribute("aria-pressed", String(next === "recording"));
  at("stop").disabled = !["opening", "recording", "waiting", "speaking"].includes(next);
  at("forget").disabled = !session;
  at("welcome").hidden = !isEmpty() || next === "key";
  ring.run(next === "recording" || next === "speaking");
  showClock();
}

function rest() {
  calling = turn = null;
  become("idle");
}

// Recording

function press() {
  // Browsers permit sound when a finger goes up, in send(), but not when it comes down.
  if (navigator.userActivation?.isActive ?? true) player.wake();
  if (state === "recording") send();
  else if (state !== "opening") begin();
}

async function begin() {
  callOff();
  clearNotice();
  const mine = run;
  become("opening");
  try {
    const opened = await Recording.begin(send);
    if (run !== mine) {
      opened.drop();
      return;
    }
    recording = opened;
    become("recording");
  } catch (refusal) {
    if (run === mine) fail(refusal, null);
  }
}

async function send() {
  if (state !== "recording") return;
  player.wake();
  const { seconds } = recording;
  const mine = run;
  become("waiting");
  const ended = recording;
  recording = null;
  const wav = await ended.end();
  if (run !== mine) return;
  if (seconds < SHORTEST_S) fail(new Refusal("audio_too_short"), null);
  else await askWith(wav, spokenLanguage());
}

function showClock() {
  const seconds = state === "recording" ? Math.floor(recording.seconds) : null;
  const text = (count) => `${Math.floor(count / 60)}:${String(count % 60).padStart(2, "0")}`;
  at("clock").textContent = seconds === null ? "" : `${text(seconds)} / ${text(Math.ceil(LONGEST_S))}`;
}

function spokenLanguage() {
  return document.querySelector("[name=speech]:checked").value;
}

// The answer

async function askWith(wav, language) {
  callOff();
  clearNotice();
  const mine = run;
  const sentAt = performance.now();
  const shown = (turn = new Turn(language));
  calling = new AbortController();
  become("waiting");
  player.begin();
  try {
    for await (const event of ask({ recording: wav, language, session, signal: calling.signal })) {
      if (run !== mine) return;
      take(event, shown, sentAt);
    }
    player.finish();
  } catch (error) {
    if (run !== mine) return;
    shown.stop();
    if (!(error instanceof Refusal)) console.error(error);
    endWith(error, () => askWith(wav, language));
  }
}

/** Show the error that ends the present turn. What has come to be heard, such as the reason, is heard to its end. */
function endWith(error, again) {
  if (player.isPlaying) {
    showRefusal(refusalFor(error), again);
    player.finish();
  } else {
    player.stop();
    fail(error, again);
  }
}

function take({ name, data }, shown, sentAt) {
  switch (name) {
    case "session":
      session = data;
      at("forget").disabled = !session;
      break;
    case "transcript":
      shown.hear(data.text, data.language);
      break;
    case "voice":
      shown.voice(data);
      break;
    case "thinking":
      if (state === "waiting") say(at("status"), "status.thinking");
      break;
    case "text":
      shown.add(data.delta);
      break;
    case "audio":
      player.add(data.audio, data.sample_rate);
      if (state === "speaking") break;
      shown.timings({ first_s: (performance.now() - sentAt) / 1000 });
      become("speaking");
      break;
    case "sentence_failed":
      shown.unspoken(data.sentence, data.error);
      break;
    case "started_over": // what came was the model's reasoning
      shown.startOver();
      player.begin();
      become("waiting");
      break;
    case "timings":
      shown.timings(data);
      break;
    case "done":
      shown.finish(data.engines, data.finish_reason);
  }
}

/** Cancel the present turn: close the microphone, stop the sound, abort the request. */
function callOff() {
  run += 1;
  recording?.drop();
  recording = null;
  player.stop();
  if (turn?.item.hasAttribute("aria-busy")) turn.stop();
  calling?.abort();
  calling = turn = null;
}

function stop() {
  if (at("stop").disabled) return;
  callOff();
  rest();
}

function refusalFor(error) {
  return error instanceof Refusal ? error : new Refusal("other", { message: String(error.message) });
}

function fail(error, again) {
  const refusal = refusalFor(error);
  rest();
  if (refusal.code === "invalid_api_key") askForKey(true);
  showRefusal(refusal, again);
}

/** Delete the session `id`. A question in the meantime starts another session. */
async function forget(id) {
  if (id === session) {
    callOff();
    session = "";
    clearConversation();
    rest();
  }
  try {
    const signal = AbortSignal.timeout(QUICK_LIMIT_MS);
    await request(`sessions/${encodeURIComponent(id)}`, { method: "DELETE", signal });
  } catch (refusal) {
    if (refusal.code !== "not_found") {
      session ||= id; // the server still has it, so the page keeps it too
      at("forget").disabled = false;
      refused(refusal, () => forget(id));
      return;
    }
  }
  showNews("forgotten");
}

/** Show an error that does not end the present turn. */
function refused(refusal, again) {
  if (state === "idle") fail(refusal, again);
  else showRefusal(refusal, again);
}

// Start and key

async function enter() {
  become("loading");
  try {
    const found = await (await request("engines", { signal: AbortSignal.timeout(QUICK_LIMIT_MS) })).json();
    clearNotice();
    at("key-form").hidden = true;
    showEngines(found);
    if ("detector" in found.engines) offerDetection();
    rest();
    if (!isSecureContext) showRefusal(new Refusal("insecure_page")); // shown before the user tries to talk
  } catch (refusal) {
    if (refusal.code === "invalid_api_key") askForKey(true);
    else if (refusal.code === "not_ready") setTimeout(enter, LOADING_PAUSE_MS);
    else showRefusal(refusal, enter, "again.look");
  }
}

/** Offer to detect the language, and choose that at first: it is right even for half a second of speech. */
function offerDetection() {
  if (!at("detection").hidden) return;
  at("detection").hidden = false;
  document.querySelector("[name=speech][value=auto]").checked = true;
}

function askForKey(wrong) {
  dropKey();
  become("key");
  at("engines").hidden = true;
  at("key-form").hidden = false;
  at("key-wrong").hidden = !wrong;
  if (wrong) say(at("key-wrong"), "key.wrong");
  at("key").focus();
}

function useKey(event) {
  event.preventDefault();
  const key = at("key").value.trim();
  at("key").value = "";
  if (!/^[\x20-\x7e]+$/.test(key)) {
    askForKey(true); // headers cannot have such characters, so no server has such a key
    return;
  }
  keepKey(key);
  enter();
}

function begins() {
  speak();
  document.querySelector(`[name=speech][value=${pageLanguage() === "zh" ? "chinese" : "english"}]`).checked = true;
  showOtherLanguage();
  makeTalkButton(at("talk"), { press, release: () => state === "recording" && send() });
  at("stop").onclick = stop;
  at("forget").onclick = () => forget(session);
  at("key-form").onsubmit = useKey;
  at("page-language").onclick = () => {
    speak(pageLanguage() === "zh" ? "en" : "zh");
    showOtherLanguage();
  };
  addEventListener("keydown", (event) => event.key === "Escape" && stop());
  setInterval(showClock, 250);
  if (document.body.dataset.key === "needed" && !hasKey()) askForKey(false);
  else enter();
}

function showOtherLanguage() {
  const other = pageLanguage() === "zh" ? { lang: "en", textContent: "English" } : { lang: "zh-CN", textContent: "中文" };
  Object.assign(at("page-language"), other);
}

begins();
