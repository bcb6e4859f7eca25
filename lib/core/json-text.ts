/**
 * Lists and objects inside each other that a JSON file may have: model files have up to ten, Python's reader ends
 * at a thousand. Beyond some thousands, whoever goes through the value has no stack left.
 */
const maxJsonDepth = 256;

const quote = 0x22;
const backslash = 0x5c;

/** A value of a JSON text from outside. @throws SyntaxError where it is none, RangeError where it is nested too deep */
export function parseJson(text: string): unknown {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case quote:
        for (i++; i < text.length && text.charCodeAt(i) !== quote; i++) {
          if (text.charCodeAt(i) === backslash) i++;
        }
        break;
      case 0x5b:
      case 0x7b:
        if (++depth > maxJsonDepth) {
          throw new RangeError(`it is nested more than ${maxJsonDepth} levels deep`);
        }
        break;
      case 0x5d:
      case 0x7d:
        depth--;
        break;
    }
  }
  return JSON.parse(text) as unknown;
}
