// The language of the page. Elements keep the names of their texts, and change the text with the language.

import { WORDS } from "./words.js";

const STORED = "mirrorchat.page-language";
const TAGS = { en: "en", zh: "zh-CN" };
const given = new WeakMap(); // the values in the placeholders of an element's text

let language = stored() ?? (navigator.languages.find((tag) => /^(zh|en)\b/i.test(tag)) ?? "en").slice(0, 2).toLowerCase();

export function pageLanguage() {
  return language;
}

/** Return the text `name` with `values` in its placeholders, or undefined if there is no such text. */
export function words(name, values = {}) {
  return WORDS[language][name]?.replace(/\{(\w+)\}/g, (_, gap) => values[gap] ?? "");
}

/** Give `element` the text `name`, in the present and every later language. */
export function say(element, name, values = {}) {
  element.dataset.say = name;
  given.set(element, values);
  sayAgain(element);
}

/** Set the language of the page to `next`, or apply the present one. */
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
    // the page asks again next time
  }
}
