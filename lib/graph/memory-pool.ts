/**
 * The rules of the pool in which TensorFlow keeps values on the CPU where oneDNN is on (BFCAllocator, with
 * growth): the best fit among free blocks, which are split and joined, in regions that double. It gives
 * nothing back, so a process holds not what is in use but whatever was at some time.
 */
export class MemoryPool {
  /** Free blocks by size class, a class a power of two. */
  readonly #bins: Block[][] = Array.from({ length: numBins }, () => []);
  readonly #regions: Region[] = [];
  #nextRegionBytes = 2 ** 21;
  #smallBytes = 0;
  #peakSmallBytes = 0;

  allocate(numBytes: number): Block | undefined {
    if (numBytes < minPooledBytes) {
      this.#smallBytes += numBytes;
      this.#peakSmallBytes = Math.max(this.#peakSmallBytes, this.#smallBytes);
      return undefined;
    }
    const rounded = Math.ceil(numBytes / granuleBytes) * granuleBytes;
    const block = this.#find(rounded) ?? this.#extend(rounded);
    this.#split(block, rounded);
    block.isFree = false;
    block.region.touch(block.start, block.start + numBytes);
    return block;
  }

  /** @param block what `allocate` gave for these bytes */
  free(block: Block | undefined, numBytes: number): void {
    if (block === undefined) {
      this.#smallBytes -= numBytes;
      return;
    }
    let joined = block;
    if (block.next?.isFree === true) {
      this.#remove(block.next);
      joined.size += block.next.size;
      joined.next = block.next.next;
      if (joined.next !== undefined) joined.next.previous = joined;
    }
    if (block.previous?.isFree === true) {
      joined = block.previous;
      this.#remove(joined);
      joined.size += block.size;
      joined.next = block.next;
      if (joined.next !== undefined) joined.next.previous = joined;
    }
    this.#insert(joined);
  }

  /** Bytes that were in use at some time. */
  get usedBytes(): number {
    return this.#regions.reduce((sum, region) => sum + region.touchedBytes, this.#peakSmallBytes);
  }

  #find(numBytes: number): Block | undefined {
    for (let bin = binOf(numBytes); bin < numBins; bin++) {
      const block = this.#bins[bin]?.find(({ size }) => size >= numBytes);
      if (block === undefined) continue;
      this.#remove(block);
      return block;
    }
    return undefined;
  }

  #extend(numBytes: number): Block {
    const isLarge = numBytes > this.#nextRegionBytes;
    while (numBytes > this.#nextRegionBytes) this.#nextRegionBytes *= 2;
    const size = this.#nextRegionBytes;
    if (!isLarge) this.#nextRegionBytes *= 2;
    const region = new Region();
    this.#regions.push(region);
    return { region, start: 0, size, isFree: true, previous: undefined, next: undefined };
  }

  /** A block that is not much larger stays whole. */
  #split(block: Block, numBytes: number): void {
    const rest = block.size - numBytes;
    if (block.size < 2 * numBytes && rest < maxUnusedBytes) return;
    if (rest === 0) return;
    const { region, next } = block;
    const remainder: Block = {
      ...{ region, start: block.start + numBytes, size: rest, isFree: true },
      ...{ previous: block, next },
    };
    if (next !== undefined) next.previous = remainder;
    block.next = remainder;
    block.size = numBytes;
    this.#insert(remainder);
  }

  #insert(block: Block): void {
    block.isFree = true;
    const bin = this.#bins[binOf(block.size)] as Block[];
    const at = bin.findIndex(({ size }) => size > block.size);
    bin.splice(at < 0 ? bin.length : at, 0, block);
  }

  #remove(block: Block): void {
    const bin = this.#bins[binOf(block.size)] as Block[];
    bin.splice(bin.indexOf(block), 1);
  }
}

/** Less comes from the C library. */
const minPooledBytes = 2 ** 18;
const granuleBytes = 256;
const numBins = 21;
/** What a block may have beyond its value, if it is less than the value. */
const maxUnusedBytes = 2 ** 27;

const binOf = (numBytes: number): number =>
  Math.min(numBins - 1, Math.floor(Math.log2(Math.max(1, numBytes / granuleBytes))));

export interface Block {
  readonly region: Region;
  readonly start: number;
  size: number;
  isFree: boolean;
  previous: Block | undefined;
  next: Block | undefined;
}

/** Memory that the pool got at once, and which of its addresses were ever written to. */
class Region {
  /** Ends of disjoint stretches, in order: start, end, start, end. */
  #bounds: number[] = [];

  touch(start: number, end: number): void {
    const bounds: number[] = [];
    let [from, to] = [start, end];
    let isPlaced = false;
    for (let i = 0; i < this.#bounds.length; i += 2) {
      const [a, b] = [this.#bounds[i] as number, this.#bounds[i + 1] as number];
      if (b < from) bounds.push(a, b);
      else if (a > to) {
        if (!isPlaced) bounds.push(from, to);
        isPlaced = true;
        bounds.push(a, b);
      } else [from, to] = [Math.min(from, a), Math.max(to, b)];
    }
    if (!isPlaced) bounds.push(from, to);
    this.#bounds = bounds;
  }

  get touchedBytes(): number {
    return this.#bounds.reduce((sum, bound, i) => sum + (i % 2 === 0 ? -bound : bound), 0);
  }
}
