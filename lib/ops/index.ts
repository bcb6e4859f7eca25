export * from "./causal-attention.js";
export * from "./linear-cross-entropy.js";
export * from "./rms-norm.js";
export * from "./rotary.js";
export * from "./swiglu.js";
