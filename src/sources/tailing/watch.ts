/**
 * Being told that something may have happened in a directory.
 *
 * @module
 */
import { join } from 'node:path';
import { FSWatcher } from 'chokidar';

/**
 * chokidar without its listings. It lists and stats a whole directory after every change in it, files that grow included:
 * in a directory of 2,000 files one that grows 200 times a second costs 1.4 CPUs, without listings 1.5 % of one. What a
 * listing finds is found by a slower scan here, which is needed anyway where changes are not told.
 */
class DirectoryWatcher extends FSWatcher {
  override _readdirp(): undefined {
    return undefined;
  }
}

/** The path of what may have changed, undefined if it may be anything; `grew` if only the content of a file may have. */
export type Hint = (path: string | undefined, grew: boolean) => void;

export interface Watch {
  close(): Promise<void>;
}

/**
 * Watches a directory, but not what is below it. Hints may be late, doubled, wrong and missing. Resolves when it watches,
 * or has told `onError` why it cannot.
 */
export const watchDirectory = async (
  directory: string,
  hint: Hint,
  onError: (cause: Error) => void,
): Promise<Watch> => {
  const watcher = new DirectoryWatcher({ depth: 0, atomic: false, ignorePermissionErrors: true });
  watcher.on('raw', (event: string, name: string | null, details: unknown) => {
    const { watchedPath } = details as { watchedPath: string };
    hint(name === null ? undefined : join(watchedPath, name), event === 'change');
  });
  await new Promise<void>(resolve => {
    watcher.on('error', cause => {
      onError(cause as Error);
      resolve();
    });
    watcher.once('ready', resolve);
    watcher.add(directory);
  });
  return watcher;
};
