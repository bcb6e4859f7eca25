/**
 * Secrets of a configuration, kept beside it: what prints, saves, logs or copies a configuration cannot
 * show them.
 */
const hubTokens = new WeakMap<object, string>();

export function keepHubToken(config: object, token: string | null): void {
  if (token !== null) hubTokens.set(config, token);
}

/** The configuration's own `hub_token`, where it had one. */
export const hubTokenOf = (config: object): string | undefined => hubTokens.get(config);
