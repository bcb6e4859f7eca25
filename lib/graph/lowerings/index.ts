import { refuseUnloweredKernels } from "#lib/graph/tracing-backend";
import "./elementwise.js";
import "./shape.js";
import "./noise.js";
import "./reduce.js";
import "./mat-mul.js";
import "./rms-norm.js";
import "./swiglu.js";
import "./rotary.js";
import "./attention.js";
import "./dropout.js";
import "./layer-norm.js";
import "./gelu.js";
import "./add-bias.js";
import "./dora.js";
import "./checkpoint.js";
import "./linear-cross-entropy.js";

refuseUnloweredKernels();
