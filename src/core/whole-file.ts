/**
 * Small files that are read and replaced as a whole.
 *
 * @module
 */
import { dirname } from 'node:path';
import type { Disk } from './disk.ts';
import { systemCode, toError } from './errors.ts';

/** The bytes of a file; undefined if there is none. */
export const readWhole = async (disk: Disk, path: string): Promise<Buffer | undefined> => {
  try {
    const file = await disk.open(path, 'read');
    try {
      const bytes = Buffer.alloc(await file.size());
      return bytes.subarray(0, await file.read(bytes, 0));
    } finally {
      await file.close();
    }
  } catch (thrown) {
    if (systemCode(toError(thrown).cause) === 'ENOENT') return undefined;
    throw thrown;
  }
};

/** Replaces it at once: a crash leaves the old text or the new one, and after this has resolved the new one. */
export const replaceWhole = async (disk: Disk, path: string, content: string | Buffer): Promise<void> => {
  const next = `${path}.tmp`;
  await disk.makeDirectory(dirname(path));
  const file = await disk.open(next, 'write');
  try {
    await file.truncate(0);
    await file.write([typeof content === 'string' ? Buffer.from(content) : content], 0);
    // Without it the rename may reach the disk before the content, and a power cut leaves an empty file.
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(next, path);
  // Without it a power cut brings back the text before.
  await disk.syncDirectory(dirname(path));
};
