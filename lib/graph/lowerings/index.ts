import { refuseUnloweredKernels } from "#lib/graph/tracing-backend";
import "./elementwise.js";
import "./shape.js";
import "./reduce.js";
import "./rms-norm.js";
import "./swiglu.js";
import "./rotary.js";
import "./causal-attention.js";
import "./linear-cross-entropy.js";

refuseUnloweredKernels();
