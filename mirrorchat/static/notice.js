// Shows errors, with advice.

import { say, words } from "./language.js";

const ALIKE = {
  no_chat_api: "chat_error", chat_rate_limited: "chat_error", non_finite_audio: "silent_audio",
};
const WITH_SERVERS_WORDS = new Set(["model_not_installed", "chat_error", "chat_interrupted", "other"]);
const WORTH_ASKING_AGAIN = new Set([
  "network_gone", "broken_off", "server_busy", "not_ready", "shutting_down", "rate_limited", "chat_error",
  "chat_interrupted", "deadline_exceeded", "recognition_failed", "other",
]);

const at = (id) => document.getElementById(id);
let countdown = 0;

/** Show a Refusal. `again` is the action of its button, if there is one. The button waits if the server asks for it. */
export function showRefusal(refusal, again = null, label = "again") {
  clearNotice();
  const name = nameOf(refusal);
  say(at("notice-title"), `refusal.${name}`);
  say(at("notice-advice"), `refusal.${name}.advice`);
  at("notice-server").textContent = WITH_SERVERS_WORDS.has(name) ? refusal.message : "";
  at("notice").dataset.code = refusal.code;
  at("notice").hidden = false;
  if (again && WORTH_ASKING_AGAIN.has(name)) offer(again, label, refusal.retryAfterS ?? 0);
  at("notice").scrollIntoView({ block: "nearest" });
}

/** Show one line of information. */
export function showNews(name) {
  clearNotice();
  say(at("notice-title"), name);
  at("notice").dataset.code = name;
  at("notice").hidden = false;
}

export function clearNotice() {
  clearInterval(countdown);
  at("notice").hidden = true;
  at("notice").dataset.code = "";
  at("again").hidden = true;
  for (const id of ["notice-title", "notice-advice", "notice-server"]) {
    delete at(id).dataset.say;
    at(id).textContent = "";
  }
}

function nameOf({ code, status }) {
  const name = status === 429 ? "rate_limited" : (ALIKE[code] ?? code);
  return words(`refusal.${name}`) ? name : "other";
}

function offer(again, label, seconds) {
  const button = at("again");
  button.hidden = false;
  button.onclick = again;
  const count = () => {
    button.disabled = seconds > 0;
    if (seconds > 0) say(button, "again.in", { seconds });
    else say(button, label);
    if (seconds <= 0) clearInterval(countdown);
    seconds -= 1;
  };
  count();
  countdown = setInterval(count, 1000);
}
