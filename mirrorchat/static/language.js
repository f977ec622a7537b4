// The language of the page itself. Elements keep what they say by name, and say it anew when the language changes.

import { WORDS } from "./words.js";

const STORED = "mirrorchat.page-language";
const TAGS = { en: "en", zh: "zh-CN" };
const given = new WeakMap(); // what stands in the gaps of an element's text

let language = stored() ?? (navigator.languages.find((tag) => /^(zh|en)\b/i.test(tag)) ?? "en").slice(0, 2).toLowerCase();

export function pageLanguage() {
  return language;
}

/** Return the text `name`, with `values` in its gaps; undefined when there is none. */
export function words(name, values = {}) {
  return WORDS[language][name]?.replace(/\{(\w+)\}/g, (_, gap) => values[gap] ?? "");
}

/** Let `element` say the text `name`, in this and every later language. */
export function say(element, name, values = {}) {
  element.dataset.say = name;
  given.set(element, values);
  sayAgain(element);
}

/** Let the page speak `next`, or the language that it has. */
export function speak(next = language) {
  if (next !== language) store(next);
  language = next;
  document.documentElement.lang = TAGS[language];
  document.querySelectorAll("[data-say]").forEach(sayAgain);
  document.querySelectorAll("[data-say-label]").forEach((element) => {
    element.setAttribute("aria-label", words(element.dataset.sayLabel));
  });
}

function sayAgain(element) {
  const text = words(element.dataset.say, given.get(element));
  if (element.textContent !== text) element.textContent = text;
}

function stored() {
  try {
    const tag = localStorage.getItem(STORED);
    return tag in TAGS ? tag : null;
  } catch {
    return null; // storage is switched off
  }
}

function store(tag) {
  try {
    localStorage.setItem(STORED, tag);
  } catch {
    // then it is asked for again next time
  }
}
