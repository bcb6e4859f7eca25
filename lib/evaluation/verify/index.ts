export { parseCase, type ReferenceCase } from "./case.js";
export { type Difference, difference, gradientFloor, keptRows, norm } from "./compare.js";
export { type CaseResult, computeCase } from "./compute.js";
