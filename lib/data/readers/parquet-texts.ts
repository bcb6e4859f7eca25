import { firstInvalidByte } from "#lib/data/files";
import { losesInJavaScript, parseJsonData } from "#lib/data/json-data";

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * A text of a Parquet file as it is, a byte order mark too. The first byte that is not UTF-8 stands as
 * half of a character (U+DC80 to U+DCFF, as `surrogateescape` of Python writes it), so that an example that
 * uses the text is refused by name, and other rows of its group are read.
 */
function textFromBytes(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    const length = firstInvalidByte(bytes);
    const escaped = String.fromCharCode(0xdc00 + (bytes[length] ?? 0));
    return (
      strict.decode(bytes.subarray(0, length)) +
      escaped +
      lenient.decode(bytes.subarray(length + 1))
    );
  }
}

const jsonValue = (text: string): unknown =>
  losesInJavaScript(text) ? parseJsonData(text) : (JSON.parse(text) as unknown);

/** What the reader of Parquet files takes in the place of its own, which put U+FFFD for a wrong byte. */
export const textParsers = Object.freeze({
  stringFromBytes: (bytes: Uint8Array | undefined) => bytes && textFromBytes(bytes),
  jsonFromBytes: (bytes: Uint8Array | undefined) => bytes && jsonValue(textFromBytes(bytes)),
});
