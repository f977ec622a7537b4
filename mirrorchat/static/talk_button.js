// The talk button: hold it while speaking, or tap it at the beginning and at the end. The space bar does the same.

const HOLD_MS = 350; // a shorter press is a tap

/**
 * Make `button` a talk button. `press` is called when it goes down, and for a click without a press (a screen reader,
 * Enter); `release` is called when it goes up after it was held.
 */
export function makeTalkButton(button, { press, release }) {
  let downAt = null;

  const down = () => {
    if (button.disabled || downAt !== null) return;
    downAt = performance.now();
    press();
  };
  const up = () => {
    if (downAt === null) return;
    const held = performance.now() - downAt > HOLD_MS;
    downAt = null;
    if (held) release();
  };

  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    down();
  });
  button.addEventListener("pointerup", up);
  button.addEventListener("pointercancel", up);
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
  button.addEventListener("click", (event) => {
    if (event.detail === 0 && !button.disabled) press();
  });
  addEventListener("blur", up);
  document.addEventListener("keydown", (event) => {
    if (!isTalkKey(event, button)) return;
    event.preventDefault();
    if (!event.repeat) down();
  });
  document.addEventListener("keyup", (event) => {
    if (!isTalkKey(event, button)) return;
    event.preventDefault(); // otherwise Firefox clicks the button
    up();
  });
}

/** Tell whether a key is the space bar, and no other element with the focus needs it. */
function isTalkKey(event, button) {
  const elsewhere = event.target.closest("input, button, summary, a, textarea, select");
  return event.code === "Space" && !event.ctrlKey && !event.altKey && !event.metaKey && (!elsewhere || elsewhere === button);
}
