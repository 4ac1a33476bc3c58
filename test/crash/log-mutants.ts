/**
 * Faults to be planted in the log, as changes of its source: what each crash rule is there for, left out.
 *
 * @module
 */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Subject } from './log-lab.ts';

/** A file of src/log, text that is in it once, and what comes in its place. */
type Patch = readonly [file: string, text: string, instead: string];

export interface Mutant {
  readonly patches: readonly Patch[];
  /** What has to find it: histories with crashes, or damage to a log that lies still. */
  readonly by: 'crash' | 'damage';
}

const synced = "this.#syncsWrites ? 'synced' : 'write'";
const groupWrite = 'await file.write(pieces, segment.length);';
const sound = 'return crc32(head, salt) === crc;';

export const mutants: Readonly<Record<string, Mutant>> = {
  'skips the fsync of a group': {
    by: 'crash',
    patches: [['log.ts', synced, "'write'"]],
  },
  'B1 confirms before the fsync': {
    by: 'crash',
    patches: [
      ['log.ts', synced, "'write'"],
      ['log.ts', groupWrite, `${groupWrite} void file.sync().catch(() => undefined);`],
    ],
  },
  'confirms before the write': {
    by: 'crash',
    patches: [['log.ts', groupWrite, 'void file.write(pieces, segment.length).catch(() => undefined);']],
  },
  'trusts the length field': {
    by: 'crash',
    patches: [['format.ts', sound, 'return head.length > 0 || crc32(head, salt) === crc;']],
  },
  'leaves the salt and the sequence number out of the sum': {
    by: 'crash',
    patches: [
      ['format.ts', 'crc32(bytes.subarray(0, frameHeaderSize), salt)', 'crc32(bytes.subarray(0, 8), salt * 0)'],
      ['format.ts', 'crc32(head, salt) === crc', 'crc32(head.subarray(0, 8), salt * 0) === crc'],
      ['segment.ts', 'if (header?.seq !== this.seq) return undefined;', 'if (header === undefined) return undefined;'],
    ],
  },
  'forgets to sync the directory of a new segment': {
    by: 'crash',
    patches: [['log.ts', 'await disk.syncDirectory(directory);\n    } catch', '} catch']],
  },
  'renames a segment before its header is safe': {
    by: 'crash',
    patches: [
      ['log.ts', 'await disk.rename(from, path);', ''],
      [
        'log.ts',
        'await file.write([bytes], 0);',
        'await disk.rename(from, path);\n      await file.write([bytes], 0);',
      ],
    ],
  },
  'B2 lets segments go before the checkpoint is safe': {
    by: 'crash',
    patches: [
      [
        'log.ts',
        'let { watermark } = this.#acked;\n      await this.#checkpoint.sync();',
        'let { watermark } = this.#acked;',
      ],
    ],
  },
  'B2 lets segments go that were done with after the checkpoint was made safe': {
    by: 'crash',
    patches: [
      [
        'log.ts',
        'watermark = this.#acked.watermark;\n          await this.#checkpoint.sync();',
        'watermark = this.#acked.watermark;',
      ],
    ],
  },
  'does not sync a segment that is full': {
    by: 'crash',
    patches: [['log.ts', "if (this.#options.fsync === 'never' || active.failed) return;", 'return;']],
  },
  'has one slot only': { by: 'crash', patches: [['register.ts', 'this.#slot = 1 - this.#slot;\n', '']] },
  'writes both slots without a sync': { by: 'crash', patches: [['register.ts', 'await this.#file.sync();', '']] },
  'leaves a torn tail': { by: 'crash', patches: [['recovery.ts', 'await file.truncate(length);', '']] },
  'asks for the fsync again after it has failed': {
    by: 'crash',
    patches: [['log.ts', groupWrite, 'await file.write(pieces, segment.length).catch(() => file.sync());']],
  },
  'forgets how far the source of a put that has joined had come': {
    by: 'crash',
    patches: [['draft.ts', 'this.sourceOffset = sourceOffset;', '']],
  },
  'reads the whole frame when it begins in its middle': {
    by: 'crash',
    patches: [['reader.ts', 'Math.max(seq, this.#seq)', 'seq']],
  },
  'takes the watermark over a hole': {
    by: 'crash',
    patches: [['acked.ts', 'if (range.start === this.watermark)', 'if (range.start >= this.watermark)']],
  },
  'uses a segment again while some of it is wanted': {
    by: 'crash',
    patches: [
      ['log.ts', 'if (first.end > watermark) {', 'if (first.header.first > watermark) {'],
      ['log.ts', 'first.end <= this.#acked.watermark', 'first.header.first <= this.#acked.watermark'],
    ],
  },
  'uses a file again before its old name is gone': {
    by: 'crash',
    patches: [['log.ts', 'await this.#context.disk.syncDirectory(first.directory);', '']],
  },
  'does not sync what it has recovered': {
    by: 'crash',
    patches: [['recovery.ts', 'await file.sync();', '']],
  },
  'lets offsets go before the next segment has them': {
    by: 'crash',
    patches: [['log.ts', '(next === undefined || next.end === next.header.first)', 'next === undefined']],
  },
  'notes a directory before it has a name': {
    by: 'crash',
    patches: [['directories.ts', 'await this.#put(directory, first);', '']],
  },
  'takes a frame of any group for the next one': {
    by: 'damage',
    patches: [['recovery.ts', 'if (later === undefined) return probe.offset;', 'return probe.offset;']],
  },
  'gives up behind a bad frame': {
    by: 'damage',
    patches: [
      ['reader.ts', 'const later = await frames.find(limit);', 'const later = undefined as Frame | undefined;'],
    ],
  },
  'does not look whether a payload is what was written': {
    by: 'damage',
    patches: [['format.ts', sound, 'return head.length > 0 || crc32(head, salt) === crc;']],
  },
  'does not look whether a slot is whole': {
    by: 'damage',
    patches: [['register.ts', 'if (crc32(copy) !== bytes.readUInt32LE(12)) return undefined;', '']],
  },
  'counts lost events of which some were done with': {
    by: 'damage',
    patches: [
      [
        'acked.ts',
        'return this.heldIn(from.seq, to.seq).map(',
        'return [[this.skip(from.seq), to.seq] as const].filter(([start, end]) => start < end).map(',
      ],
    ],
  },
};

/** Gives the log with these changes. Fails when one does not fit: the source has changed, and the table must follow. */
export const planted = async (patches: readonly Patch[]): Promise<Subject & { remove: () => Promise<void> }> => {
  const source = resolve(import.meta.dirname, '../../src');
  const folder = await mkdtemp(join(tmpdir(), 'crash-mutant-'));
  await cp(join(source, 'log'), folder, { recursive: true });
  for (const [file, text, instead] of patches) {
    const path = join(folder, file);
    const before = await readFile(path, 'utf8');
    if (before.split(text).length !== 2) throw new Error(`not exactly once in ${file}: ${text}`);
    await writeFile(
      path,
      before.replace(text, () => instead),
    );
  }
  for (const file of await readdir(folder)) {
    const path = join(folder, file);
    await writeFile(path, (await readFile(path, 'utf8')).replaceAll("from '../", `from '${source}/`));
  }
  const load = (file: string): Promise<unknown> => import(pathToFileURL(join(folder, file)).href);
  const { EventLog } = (await load('log.ts')) as Pick<Subject, 'EventLog'>;
  const { LogReader } = (await load('reader.ts')) as Pick<Subject, 'LogReader'>;
  return { EventLog, LogReader, remove: () => rm(folder, { recursive: true }) };
};
