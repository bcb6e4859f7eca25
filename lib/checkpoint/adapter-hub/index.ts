export { bottleneckName, bottleneckPrefix } from "./names.js";
export { openBottleneckDirectory } from "./reading.js";
export { type BottleneckConfig, writeBottleneckDirectory } from "./writing.js";
