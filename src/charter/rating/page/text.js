// Text of models and data, shown as text and as nothing else: no markup, no links, and no character that hides or reorders.

// C0 and C1 controls but newline and tab, soft hyphen, zero-width and bidirectional marks, separators, tags, lone surrogates
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]|\p{Cs}/gu;

export function fill(element, text) {
  const parts = [];
  let end = 0;
  for (const found of text.replaceAll("\r\n", "\n").matchAll(HIDDEN)) {
    parts.push(found.input.slice(end, found.index), mark(found[0]));
    end = found.index + found[0].length;
  }
  parts.push(text.replaceAll("\r\n", "\n").slice(end));
  element.replaceChildren(...parts);
}

export function mark(character) {
  const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return create("span", "mark", `U+${code}`);
}

export function create(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
