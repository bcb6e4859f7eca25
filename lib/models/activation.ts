import * as tf from "@tensorflow/tfjs-core";
import { gelu, type GeluForm, swiGlu } from "#lib/ops/index";

/** Names of Hugging Face configurations and what they compute. */
const forms = {
  gelu: "erf",
  gelu_python: "erf",
  gelu_new: "tanh",
  gelu_fast: "tanh",
  gelu_pytorch_tanh: "tanh",
  gelu_python_tanh: "tanh",
  gelu_accurate: "tanh",
  quick_gelu: "quick",
  relu: "relu",
  silu: "silu",
  swish: "silu",
  tanh: "tanhAlone",
} as const satisfies Readonly<Record<string, GeluForm | "relu" | "silu" | "tanhAlone">>;

export type Activation = keyof typeof forms;
export const activationNames = Object.keys(forms) as readonly Activation[];

export function activate(name: Activation, x: tf.Tensor): tf.Tensor {
  const form = forms[name];
  switch (form) {
    case "relu":
      return tf.relu(x);
    case "silu":
      return tf.mul(x, tf.sigmoid(x));
    case "tanhAlone":
      return tf.tanh(x);
    default:
      return gelu(x, form);
  }
}

/** activation(gate) * up. */
export const activateGated = (name: Activation, gate: tf.Tensor, up: tf.Tensor): tf.Tensor =>
  forms[name] === "silu" ? swiGlu(gate, up) : tf.mul(activate(name, gate), up);
