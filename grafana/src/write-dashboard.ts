import { writeFileSync } from "node:fs";
import { buildDashboard } from "./dashboard.js";

// node dist/grafana/src/write-dashboard.js grafana/dashboards/lockstep.json
const file = process.argv[2];
if (file === undefined) throw new Error("Give the file to write.");
writeFileSync(file, `${JSON.stringify(buildDashboard(), null, 2)}\n`);
