import type { LockstepError } from "#lib/core/errors/index";
import { maxListedExamples } from "./bad-examples.js";
import type { DatasetFormat } from "./formats/index.js";
import { NumberList } from "./number-list.js";
import type { DataObserver, ObservedExample } from "./observer.js";
import { PlaceList } from "./place-list.js";

/** What was read of one file, or of a built-in data set. */
export interface SourceCount {
  readonly source: string;
  /** Undefined where no example was read. */
  readonly format: DatasetFormat | undefined;
  /** Examples that could be read, blank ones among them. */
  readonly numRows: number;
  /** Blank texts, which are left out. */
  readonly numBlank: number;
}

interface Count {
  format: DatasetFormat | undefined;
  numRows: number;
  numBlank: number;
}

/** Writes down what a preparation meets, in some 20 bytes an example. */
export class DataLedger implements DataObserver {
  readonly #sources = new Map<string, Count>();
  readonly #rejected: LockstepError[] = [];
  readonly #places = new PlaceList();
  readonly #lengths = NumberList.ofInt32();
  readonly #formats: (DatasetFormat | undefined)[] = [];
  readonly #formatOf = NumberList.ofInt32();
  readonly #maxRejected: number;
  numRejected = 0;

  /** @param maxRejected examples that cannot be used and are kept by name; the others are counted */
  constructor({ maxRejected = maxListedExamples }: { maxRejected?: number } = {}) {
    this.#maxRejected = maxRejected;
  }

  get sources(): SourceCount[] {
    return [...this.#sources].map(([source, count]) => ({ source, ...count }));
  }

  /** The first examples that cannot be used. */
  get rejected(): readonly LockstepError[] {
    return this.#rejected;
  }

  /** Tokens of all examples, before anything is cut off. */
  get lengths(): Int32Array {
    return this.#lengths.values;
  }

  /** @param example as {@link PreparedRows.examples} numbers it */
  example(example: number): ObservedExample {
    return {
      place: this.#places.at(example),
      format: this.#formats[this.#formatOf.values[example] ?? 0],
      numTokens: this.#lengths.values[example] ?? 0,
    };
  }

  readonly onSource = (source: string): void => void this.#count(source);

  readonly onRead = (source: string, format: DatasetFormat): void => {
    const count = this.#count(source);
    count.format = format;
    count.numRows++;
  };

  readonly onBlank = (source: string): void => void this.#count(source).numBlank++;

  readonly onRejected = (error: LockstepError): void => {
    this.numRejected++;
    if (this.#rejected.length < this.#maxRejected) this.#rejected.push(error);
  };

  readonly onExample = ({ place, format, numTokens }: ObservedExample): void => {
    this.#places.push(place);
    this.#lengths.push(numTokens);
    if (!this.#formats.includes(format)) this.#formats.push(format);
    this.#formatOf.push(this.#formats.indexOf(format));
  };

  #count(source: string): Count {
    let count = this.#sources.get(source);
    if (count === undefined) {
      count = { format: undefined, numRows: 0, numBlank: 0 };
      this.#sources.set(source, count);
    }
    return count;
  }
}
