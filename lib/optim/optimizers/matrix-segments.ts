/** Whole rows of a matrix, or a piece of one row. */
interface MatrixSegment {
  /** Elements from the part's first one. */
  readonly offset: number;
  /** Row of its first element, counted through all matrices of the tensor. */
  readonly row: number;
  readonly matrix: number;
  readonly column: number;
  readonly numRows: number;
  readonly numColumns: number;
}

/** A tensor as matrices one below the other, of its last two dimensions; a vector is a matrix of one row. */
export function matricesOf(shape: readonly number[]): {
  readonly numMatrices: number;
  readonly numRows: number;
  readonly numColumns: number;
} {
  const numColumns = shape.at(-1) ?? 1;
  const numRows = shape.at(-2) ?? 1;
  const numMatrices = shape.slice(0, -2).reduce((product, dim) => product * dim, 1);
  return { numMatrices, numRows, numColumns };
}

/** Elements `start` and after of a tensor, in order, as segments that each lie in one matrix. */
export function* matrixSegments(
  shape: readonly number[],
  start: number,
  numElements: number,
): Generator<MatrixSegment> {
  const { numRows: rowsOfMatrix, numColumns: rowLength } = matricesOf(shape);
  const end = start + numElements;
  for (let at = start; at < end; ) {
    const row = Math.floor(at / rowLength);
    const column = at - row * rowLength;
    const isWhole = column === 0 && end - at >= rowLength;
    const wholeRows = Math.min(
      Math.floor((end - at) / rowLength),
      rowsOfMatrix - (row % rowsOfMatrix),
    );
    const numRows = isWhole ? wholeRows : 1;
    const numColumns = isWhole ? rowLength : Math.min(rowLength - column, end - at);
    const matrix = Math.floor(row / rowsOfMatrix);
    yield { offset: at - start, row, matrix, column, numRows, numColumns };
    at += numRows * numColumns;
  }
}
