import { blockElements } from "#lib/core/parameter-layout";
import { matricesOf, matrixSegments } from "./matrix-segments.js";
import type { StatisticsPass } from "./tensor-wise.js";

export type AdafactorSettings = Readonly<{
  scaleParameter: boolean;
  clipThreshold: number;
  decayRate: number;
  /** Added to squared gradients. */
  squareEpsilon: number;
  /** The least root mean square of weights that a rate is scaled by. */
  scaleEpsilon: number;
  /** 0: no first moment. */
  beta1: number;
  weightDecay: number;
}>;

export type AdafactorSlot = "first_moment";

/** Exports of lib/optim/assembly/adafactor.ts; addresses in bytes. */
export interface AdafactorKernels {
  setAdafactorGradient(gradientScale: number, epsilon: number): void;
  setAdafactorStep(
    clipDivisor: number,
    learningRate: number,
    negativeDecay: number,
    beta1: number,
    oneMinusBeta1: number,
  ): void;
  adafactorSquares(
    g: number,
    rowSums: number,
    columnSums: number,
    numRows: number,
    numColumns: number,
  ): void;
  adafactorNormalise(
    g: number,
    rowFactors: number,
    columnFactors: number,
    numRows: number,
    numColumns: number,
  ): number;
  adafactorStep(p: number, m: number, u: number, n: number): void;
}

type Pass = StatisticsPass<AdafactorSettings, AdafactorSlot, AdafactorKernels>;

/** A segment has at most so many rows, and as many columns. */
const maxLength = blockElements;
/** Float64 sums, and after them in the other pass float32 factors: of rows, then of columns. */
export const adafactorScratchBytes = 2 * maxLength * 8;

/** Rows and columns have statistics of their own where there are both; of a vector each element has. */
export const isFactored = (shape: readonly number[]): boolean => shape.length >= 2;

const numRowsOf = (shape: readonly number[]): number => {
  const { numMatrices, numRows } = matricesOf(shape);
  return isFactored(shape) ? numMatrices * numRows : 0;
};

const numColumnsOf = (shape: readonly number[]): number => {
  const { numMatrices, numColumns } = matricesOf(shape);
  return numMatrices * numColumns;
};

const { fround } = Math;

/**
 * Running means of squared gradients over rows and over columns, of a vector of each element's, and what the gradient
 * is multiplied by for them: first factors of the rows, then of the columns.
 */
export const meansOfSquares: Pass = {
  numSums: (shape) => numRowsOf(shape) + numColumnsOf(shape),
  numGiven: (shape) => numRowsOf(shape) + numColumnsOf(shape),

  measure(kernels, { squareEpsilon }, { gradientScale }) {
    kernels.setAdafactorGradient(gradientScale, squareEpsilon);
    return ({ shape, start, numElements, gradient }, _given, add, scratch) => {
      const { buffer, byteOffset } = scratch.bytes;
      const columnsAt = maxLength * 8;
      for (const segment of matrixSegments(shape, start, numElements)) {
        const { offset, row, matrix, column, numRows, numColumns } = segment;
        const columns = new Float64Array(buffer, byteOffset + columnsAt, numColumns).fill(0);
        kernels.adafactorSquares(
          gradient + offset * 4,
          scratch.start,
          scratch.start + columnsAt,
          numRows,
          numColumns,
        );
        if (isFactored(shape)) add(row, new Float64Array(buffer, byteOffset, numRows));
        add(numRowsOf(shape) + matrix * matricesOf(shape).numColumns + column, columns);
      }
    };
  },

  conclude(sums, { shape, states }, into, { decayRate }, { updateNumber }) {
    const { numMatrices, numRows, numColumns } = matricesOf(shape);
    const beta2 = 1 - updateNumber ** decayRate;
    const columns = numRowsOf(shape);
    if (!isFactored(shape)) {
      const squares = stateOf(states, "second_moment");
      runningMean(squares, sums, 1, beta2);
      for (const [i, square] of squares.entries()) into[i] = rsqrt(square);
      return;
    }
    const rowMeans = stateOf(states, "second_moment_rows");
    const columnMeans = stateOf(states, "second_moment_columns");
    runningMean(rowMeans, sums.subarray(0, columns), numColumns, beta2);
    runningMean(columnMeans, sums.subarray(columns), numRows, beta2);
    for (let matrix = 0; matrix < numMatrices; matrix++) {
      const from = matrix * numRows;
      let sum = 0;
      for (let row = from; row < from + numRows; row++) sum += rowMeans[row] as number;
      const mean = fround(sum / numRows);
      for (let row = from; row < from + numRows; row++) {
        into[row] = rsqrt(fround((rowMeans[row] as number) / mean));
      }
    }
    for (const [i, columnMean] of columnMeans.entries()) into[columns + i] = rsqrt(columnMean);
  },
};

/**
 * The gradient becomes the update before clipping; with its root mean square, and that of the weights where the rate
 * is scaled by it, what the update is divided and multiplied by.
 */
export const normalisedUpdate: Pass = {
  numSums: () => 2,
  numGiven: () => 2,

  measure(kernels, { scaleParameter, squareEpsilon }, { gradientScale }) {
    kernels.setAdafactorGradient(gradientScale, squareEpsilon);
    return ({ shape, start, numElements, gradient, masters }, given, add, scratch) => {
      const { buffer, byteOffset } = scratch.bytes;
      const columnsAt = maxLength * 4;
      const rows = new Float32Array(buffer, byteOffset, maxLength);
      const columns = new Float32Array(buffer, byteOffset + columnsAt, maxLength);
      const [rowsEnd, { numColumns: rowLength }] = [numRowsOf(shape), matricesOf(shape)];
      let sumOfSquares = 0;
      for (const segment of matrixSegments(shape, start, numElements)) {
        const { offset, row, matrix, column, numRows, numColumns } = segment;
        if (isFactored(shape)) rows.set(given.subarray(row, row + numRows));
        else rows[0] = 1;
        const first = rowsEnd + matrix * rowLength + column;
        columns.set(given.subarray(first, first + numColumns));
        sumOfSquares += kernels.adafactorNormalise(
          gradient + offset * 4,
          scratch.start,
          scratch.start + columnsAt,
          numRows,
          numColumns,
        );
      }
      const ofWeights = scaleParameter ? kernels.sumOfSquares(masters, roundUp8(numElements)) : 0;
      add(0, [sumOfSquares, ofWeights]);
    };
  },

  conclude([ofUpdate = 0, ofWeights = 0], { shape }, into, settings, { learningRate }) {
    const { scaleParameter, clipThreshold, scaleEpsilon } = settings;
    const size = shape.reduce((product, dim) => product * dim, 1);
    const rootMeanSquare = (sum: number): number =>
      fround(fround(Math.sqrt(sum)) / fround(Math.sqrt(size)));
    const scale = scaleParameter ? Math.max(scaleEpsilon, rootMeanSquare(ofWeights)) : 1;
    into[0] = Math.max(1, rootMeanSquare(ofUpdate) / clipThreshold);
    into[1] = scale * learningRate;
  },
};

/** What part of a tensor's memory kernels go over: padding belongs to it. */
export const roundUp8 = (numElements: number): number => Math.ceil(numElements / 8) * 8;

/** mean = beta2 * mean + (1 - beta2) * sums / count, in float32. */
function runningMean(mean: Float32Array, sums: Float64Array, count: number, beta2: number): void {
  const [old, fresh] = [fround(beta2), fround(1 - beta2)];
  for (const [i, sum] of sums.entries()) {
    mean[i] = fround((mean[i] as number) * old) + fround(fround(sum / count) * fresh);
  }
}

const rsqrt = (value: number): number => fround(1 / fround(Math.sqrt(value)));

function stateOf(states: Readonly<Record<string, Float32Array>>, name: string): Float32Array {
  const state = states[name];
  if (state === undefined) throw new RangeError(`The tensor has no ${name}`);
  return state;
}
