// Tokens made visible, numbers made short, elements made small.

const VISIBLE = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };
const UNSEEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff ]/g;

/** A token as it is read: whitespace, control and direction characters become visible signs. */
function visible(token) {
  if (token === "") return "∅";
  return token.replace(UNSEEN, (c) => VISIBLE[c] || `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

function short(text, length) {
  const letters = Array.from(text);
  return letters.length <= length ? text : letters.slice(0, length - 1).join("") + "…";
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "—";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size < 0.001 || size >= 1e5) text = size.toExponential(1);
  else text = size >= 1 ? size.toPrecision(Math.max(digits, 1)) : size.toFixed(digits + (size < 0.1 ? 1 : 0));
  return (value < 0 ? "−" : "") + text;
}

function tick(value) {
  const size = Math.abs(value);
  const text = size === 0 ? "0" : size < 0.001 || size >= 1e4 ? size.toExponential(1).replace(".0e", "e") : String(Number(size.toPrecision(2)));
  return (value < 0 ? "−" : "") + text;
}

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Badges describe the head, not the prompt on the screen.
const MEASURED = "on random repeats";
const SHORT_NAMES = {
  "first-token": "1st",
  "previous-token": "prev",
  "duplicate-token": "dup",
  "current-token": "self",
  induction: "ind",
};

function badgeName(badge, brief) {
  return (brief && SHORT_NAMES[badge.behaviour]) || badge.label;
}

function badgeText(badge) {
  const chance = badge.chance === undefined || badge.chance === null ? "" : ` (chance ${badge.chance.toFixed(2)})`;
  return `${badge.label} ${badgeValue(badge)}${chance}`;
}

function badgeValue(badge) {
  return typeof badge.value === "number" ? badge.value.toFixed(2).replace("-", "−") : "";
}

function message(error) {
  return (error && error.message) || String(error);
}

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** Run `work` once, `wait` ms after the last call. */
function debounced(work, wait) {
  let timer = 0;
  const run = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
  run.cancel = () => clearTimeout(timer);
  return run;
}
