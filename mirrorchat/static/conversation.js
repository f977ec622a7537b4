// Shows the texts of both sides while they arrive, and the engines and times of the stages as small print.

import { say, words } from "./language.js";

const STAGES = { recognize: "recognizer", answer: "chat", voice: null, speak: "synthesizer", first: null, total: null };
const LISTED = ["recognizer.zh", "recognizer.en", "detector", "chat", "synthesizer.zh", "synthesizer.en"];
const HAN = /\p{Script=Han}/u;
const TAGS = { chinese: "zh-CN", english: "en" };

const list = document.getElementById("conversation");

/** One question and its answer on the page. */
export class Turn {
  #timings = {};

  /** `language` is `auto` until it is detected. */
  constructor(language) {
    this.item = make("article", "turn");
    this.item.setAttribute("aria-busy", "true"); // a screen reader waits for the whole answer
    this.#speaks(language);
    this.asked = this.#side("asked", "turn.you");
    this.answered = this.#side("answered", "turn.answer");
    this.print = make("ul", "print");
    this.item.append(this.print);
    list.append(this.item);
    say(this.asked, "turn.hearing");
    this.#show();
  }

  hear(text, language) {
    this.#speaks(language);
    delete this.asked.dataset.say;
    this.asked.textContent = text;
    this.#show();
  }

  add(delta) {
    this.answered.append(delta);
    this.#show();
  }

  voice({ kind, reason }) {
    const entry = this.#entry(`voice voice-${kind}`, `voice.${kind}`);
    entry.append(" ", make("span", "reason", reason));
    entry.lastChild.lang = "en";
  }

  unspoken(sentence, { message }) {
    const note = this.#note("turn.unspoken", { sentence });
    note.append(" ", make("span", "reason", message));
  }

  timings(seconds) {
    for (const stage of Object.keys(STAGES)) {
      if (`${stage}_s` in seconds) this.#timings[stage] = seconds[`${stage}_s`];
    }
  }

  /** End with the small print. `engines`, by stage, and `reason` are those of the server's event `done`. */
  finish(engines, reason) {
    if (words(`ended.${reason}`)) this.#note(`ended.${reason}`);
    if (engines.synthesizer?.tier === "floor" && HAN.test(this.answered.textContent)) this.#note("voice.hard");
    for (const [stage, engine] of Object.entries(STAGES)) {
      if (!(stage in this.#timings)) continue;
      const entry = this.#entry(`stage stage-${stage}`, `stage.${stage}`);
      const time = make("span", "time");
      say(time, "seconds", { seconds: this.#timings[stage].toFixed(this.#timings[stage] < 10 ? 2 : 0) });
      entry.append(" ", time);
      if (engine in engines) entry.append(" ", make("span", "model", modelOf(engines[engine])));
    }
    this.item.removeAttribute("aria-busy");
    this.#show();
  }

  /** Remove what there is of the answer, which begins again. */
  startOver() {
    this.answered.textContent = "";
    this.print.replaceChildren();
    this.item.querySelectorAll(".wrong").forEach((note) => note.remove());
  }

  /** End early. Text that has arrived stays; a turn without text leaves the page. */
  stop() {
    this.item.removeAttribute("aria-busy");
    if ("say" in this.asked.dataset) this.item.remove();
    else this.#entry("stopped", "turn.stopped");
  }

  #speaks(language) {
    if (language in TAGS) this.item.lang = TAGS[language];
  }

  #side(name, label) {
    const side = make("div", name);
    say(side.appendChild(make("h2", "who")), label);
    this.item.append(side);
    return side.appendChild(make("p", "words"));
  }

  #note(name, values = {}) {
    const note = make("p", "wrong");
    say(note, name, values);
    this.print.before(note);
    return note;
  }

  #entry(name, label) {
    const entry = this.print.appendChild(make("li", name));
    say(entry.appendChild(make("span", "label")), label);
    return entry;
  }

  #show() {
    this.item.scrollIntoView({ block: "end" });
  }
}

export function clearConversation() {
  list.replaceChildren();
}

export function isEmpty() {
  return !list.childElementCount;
}

/** Fill the list of engines: those of the server's `/engines`, by stage, and the command that goes up a tier. */
export function showEngines({ engines, upgrade }) {
  const entries = LISTED.filter((stage) => stage in engines).map((stage) => {
    const engine = engines[stage];
    const entry = make("div", "engine");
    say(entry.appendChild(make("dt", "")), `engine.${stage}`);
    const what = entry.appendChild(make("dd"));
    if (engine.tier) {
      say(what.appendChild(make("span", "tier")), `tier.${engine.tier}`);
      what.append(" · ");
    }
    const model = what.appendChild(make("span", "model", modelOf(engine)));
    const reason = what.appendChild(make("span", "reason", engine.reason));
    model.lang = reason.lang = "en";
    return entry;
  });
  document.getElementById("engine-list").replaceChildren(...entries);
  const advice = document.getElementById("engines-upgrade");
  advice.hidden = !upgrade;
  if (upgrade) say(advice, "engines.upgrade", { command: upgrade });
  document.getElementById("engines").hidden = false;
}

function modelOf({ name, model }) {
  return model && model !== name ? `${name} · ${model}` : name;
}

function make(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}
