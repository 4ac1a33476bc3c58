/**
 * What every Node process of the bench starts with: `node child.js <module> <function> <JSON arguments>`.
 * The function may `tell` its parent things and wait for the parent's `go`. When it returns the process stays, so that
 * its peak memory can be read from outside; it ends by a signal or with its parent.
 *
 * @module
 */

/** A function that a child runs. */
export type ChildMain<A> = (args: A, tell: (message: unknown) => void, go: () => Promise<void>) => Promise<void> | void;

process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));

const gone: (() => void)[] = [];
let allowed = 0;
process.on('message', () => {
  const next = gone.shift();
  if (next === undefined) allowed++;
  else next();
});
const go = () =>
  new Promise<void>(resolve => {
    if (allowed > 0) {
      allowed--;
      resolve();
    } else gone.push(resolve);
  });

const [module, name, args] = process.argv.slice(2) as [string, string, string];
const functions = (await import(new URL(`./${module}.js`, import.meta.url).href)) as Record<string, ChildMain<unknown>>;
await functions[name]!(JSON.parse(args), message => void process.send?.(message), go);
