/**
 * The arguments that Flume's launcher takes, in the shapes that a parser of ordinary options cannot: `-Dname=value`,
 * `-Xmx512m`, and words with one dash such as `-prov`.
 *
 * @module
 */

/** What the launcher of a JVM would have used, and what is left. */
export interface LauncherArguments {
  /** `-Dname=value`; without a value it is empty. */
  readonly system: Readonly<Record<string, string>>;
  /** Options for a JVM: there is none. */
  readonly ignored: readonly string[];
  readonly rest: readonly string[];
}

const oneDash: Readonly<Record<string, string>> = {
  '-prov': '--conf-provider',
  '-user': '--conf-user',
  '-pwd': '--conf-password',
};

export const splitArguments = (given: readonly string[]): LauncherArguments => {
  const system: Record<string, string> = Object.create(null) as Record<string, string>;
  const ignored: string[] = [];
  const rest: string[] = [];
  for (const word of given) {
    const property = /^-D([^=]+)(?:=([\s\S]*))?$/.exec(word);
    if (property !== null) system[property[1] as string] = property[2] ?? '';
    else if (/^-X./.test(word)) ignored.push(word);
    else rest.push(oneDash[word] ?? word);
  }
  return { system, ignored, rest };
};
