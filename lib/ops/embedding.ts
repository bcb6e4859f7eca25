// Shape legend: M positions, D model width, V rows of the table.
import * as tf from "@tensorflow/tfjs-core";

/**
 * Rows of a table.
 *
 * @param table_VD float
 * @param ids_M int32
 * @param paddingId a row that is read but gets no gradient from here, as torch's `padding_idx`; null: none
 * @returns [M, D] in the table's type
 */
export function embedding(
  table_VD: tf.Tensor,
  ids_M: tf.Tensor1D,
  paddingId: number | null,
): tf.Tensor {
  const rows_MD = tf.gather(table_VD, ids_M);
  if (paddingId === null) return rows_MD;
  const isReal_M1 = tf.expandDims(tf.notEqual(ids_M, tf.scalar(paddingId, "int32")), 1);
  const passThrough = tf.customGrad((...args) => {
    const [x] = args as [tf.Tensor];
    return {
      value: tf.cast(x, "float32"),
      gradFunc: (dy: tf.Tensor | tf.Tensor[]) => [
        tf.mul(dy as tf.Tensor, tf.cast(isReal_M1, "float32")),
      ],
    };
  });
  return passThrough(rows_MD);
}
