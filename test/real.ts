import { describe } from 'vitest';

/** In CI, and with FAULTS=1: what takes many minutes runs as well. */
export const thorough = process.env['CI'] !== undefined || process.env['FAULTS'] !== undefined;

/**
 * vitest's `describe` for tests with real servers. Where those cannot be had it skips, and says so loudly. In CI it never
 * does.
 */
export const describeReal = async (
  what: string,
  missing: string | undefined,
  fetch: () => Promise<unknown>,
): Promise<typeof describe> => {
  const reason =
    missing ??
    (await fetch().then(
      () => undefined,
      (cause: unknown) => `it could not be fetched: ${String(cause).slice(0, 500)}`,
    ));
  const skipped = reason !== undefined && process.env['CI'] === undefined;
  if (skipped) console.warn(`SKIPPED, ${what}: ${reason}`);
  return describe.skipIf(skipped) as typeof describe;
};
