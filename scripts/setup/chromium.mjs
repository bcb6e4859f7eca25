// A browser for the dashboard's test.

import { aptInstall } from "./apt.mjs";
import { SetupError, say } from "./console.mjs";
import { findProgram, succeeds } from "./run.mjs";

/** The program's names across distributions. */
const PROGRAMS = [
  "chromium",
  "chromium-browser",
  "google-chrome-stable",
  "google-chrome",
  "chrome",
];
/** The package's names; Ubuntu's packages of these names are stubs that need snapd, so the result is tried. */
const PACKAGES = ["chromium", "chromium-browser"];

/** @returns {Promise<{chromium: string}>} */
export async function installChromium() {
  const present = workingBrowser();
  if (present !== null) return { chromium: present };
  const problems = [];
  for (const name of PACKAGES) {
    try {
      say(`installing ${name}`);
      await aptInstall(name);
    } catch (error) {
      problems.push(error.message);
      continue;
    }
    const installed = workingBrowser();
    if (installed !== null) return { chromium: installed };
    problems.push(`the package ${name} brought no working browser`);
  }
  throw new SetupError([...new Set(problems)].join("; "));
}

function workingBrowser() {
  for (const name of PROGRAMS) {
    const path = findProgram(name);
    if (path !== null && succeeds(path, ["--version"])) return path;
  }
  return null;
}
