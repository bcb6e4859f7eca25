import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { shellWord } from "#lib/core/shell-word";
import { printable } from "#lib/core/terminal-text";
import { copyRecipe, listRecipes } from "#run/recipes";

/** `lockstep recipes`. Returns the exit code; errors of the catalogue are thrown. */
export async function recipesCommand(args: readonly string[]): Promise<number> {
  const [action, name, file, ...rest] = args;
  if (action === undefined) {
    const recipes = await listRecipes();
    const width = Math.max(...recipes.map((recipe) => recipe.name.length));
    for (const recipe of recipes) {
      process.stdout.write(`${recipe.name.padEnd(width)}  ${recipe.summary}\n`);
    }
    return 0;
  }
  if (action !== "copy" || name === undefined || file === undefined || rest.length > 0) {
    const problem = "it lists recipes, or takes `copy NAME FILE`";
    throw new LockstepError("E_USAGE", { command: "recipes", problem });
  }
  if (file === "") {
    throw new LockstepError("E_USAGE", {
      command: "recipes",
      problem: "the name of FILE is empty",
    });
  }
  const data = await copyRecipe(name, expandHome(file));
  const trained = data === undefined ? "" : ` Its data are ${data}.`;
  const command = `lockstep train ${shellWord(file)}`;
  process.stdout.write(`${printable(`Wrote ${file}.${trained} \`${command}\` runs it.`)}\n`);
  return 0;
}
