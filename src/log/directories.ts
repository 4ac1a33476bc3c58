/**
 * Which data directories a log has. A disk that is not mounted, or a path with a typing error, looks like a directory that is
 * empty: what is in the right one would be given up. So each data directory has a name of its own, and each of them and that of
 * the checkpoint has a note of all of them, `directories.json`:
 *
 *     {"version":1,"own":"<16 hexadecimal digits>","all":[{"name":"<16 hexadecimal digits>","path":"/var/a"}, …],"sum":<CRC of all before>}
 *
 * A name is there before any note mentions it, so that no crash leaves a note of a directory that cannot be recognised. Paths
 * are for people, and for whoever has lost his note: a directory may be moved.
 *
 * @module
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Disk } from '../core/disk.ts';
import { MillraceError } from '../core/errors.ts';
import { readWhole, replaceWhole } from '../core/whole-file.ts';
import { newer } from './format.ts';
import { freeName } from './recovery.ts';

interface Named {
  readonly name: string;
  /** Where it was when the log was last open. */
  readonly path: string;
}

interface Note {
  readonly own: string | undefined;
  readonly all: readonly Named[];
}

const noteName = 'directories.json';

/** The notes as they were found, and what follows from them. */
export class Directories {
  /** Data directories that some note mentions, and that are not among those that were given. */
  readonly missing: readonly Named[];
  readonly #disk: Disk;
  readonly #dataDirs: readonly string[];
  /** Directory → the text of its note. */
  readonly #texts: ReadonlyMap<string, string>;
  /** Path of a data directory → its name, where that is known. */
  readonly #names = new Map<string, string>();

  private constructor(disk: Disk, dataDirs: readonly string[], found: ReadonlyMap<string, Found>) {
    this.#disk = disk;
    this.#dataDirs = dataDirs;
    this.#texts = new Map([...found].map(([directory, { text }]) => [directory, text]));
    const all = new Map([...found.values()].flatMap(({ note }) => note?.all ?? []).map(one => [one.name, one]));
    for (const directory of dataDirs) {
      const { note, damaged } = found.get(directory) as Found;
      const own = note?.own ?? (damaged ? [...all.values()].find(({ path }) => path === directory)?.name : undefined);
      if (own !== undefined) this.#names.set(directory, own);
    }
    for (const name of this.#names.values()) all.delete(name);
    this.missing = [...all.values()];
  }

  /** Reads the notes. A damaged one is kept aside; the others have all that was in it. */
  static async read(
    disk: Disk,
    { dataDirs, checkpointDir }: { readonly dataDirs: readonly string[]; readonly checkpointDir: string },
    report: (problem: Error) => void,
  ): Promise<Directories> {
    const found = new Map<string, Found>();
    for (const directory of new Set([...dataDirs, checkpointDir])) {
      const path = join(directory, noteName);
      const bytes = (await readWhole(disk, path)) ?? Buffer.alloc(0);
      const text = bytes.toString();
      const note = decode(text, path);
      const damaged = note === undefined && text !== '';
      if (damaged) {
        const aside = await freeName(disk, `${path}.damaged`);
        // It stays until there is another one: without any it would not be known.
        await replaceWhole(disk, aside, bytes);
        report(new MillraceError('MR_CORRUPT_FILE', `${path} is damaged; it was copied to ${aside}.`));
      }
      found.set(directory, { text: damaged ? '' : text, note, damaged });
    }
    return new Directories(disk, dataDirs, found);
  }

  /** Notes that these are all, and safely so. Does nothing when all the notes say so. */
  async write(secret: (count: number) => Buffer = randomBytes): Promise<void> {
    for (const directory of this.#dataDirs)
      if (!this.#names.has(directory)) this.#names.set(directory, secret(8).toString('hex'));
    const all = Array.from(this.#names, ([path, name]) => ({ name, path }));
    const texts = Array.from(this.#texts, ([directory, before]) => {
      const own = this.#names.get(directory);
      // Until the others have their names, what was there before, or nothing but its own.
      const first = before === '' ? encode({ own, all: all.filter(({ name }) => name === own) }) : before;
      return { directory, before, first, text: encode({ own, all }) };
    });
    if (texts.every(({ before, text }) => before === text)) return;
    // Also those that are there: they may not be safe yet, and a power cut would take a name that others mention.
    for (const { directory, first } of texts) if (this.#names.has(directory)) await this.#put(directory, first);
    for (const { directory, first, text } of texts)
      if (first !== text || !this.#names.has(directory)) await this.#put(directory, text);
  }

  #put(directory: string, text: string): Promise<void> {
    return replaceWhole(this.#disk, join(directory, noteName), text);
  }
}

interface Found {
  readonly text: string;
  readonly note: Note | undefined;
  readonly damaged: boolean;
}

const encode = ({ own, all }: Note): string => {
  const text = JSON.stringify({ version: 1, own, all }).slice(0, -1);
  return `${text},"sum":${crc32(text)}}\n`;
};

/** Undefined if it is not as it was written. A newer version is refused. */
const decode = (text: string, path: string): Note | undefined => {
  const [, body = '', sum] = /^(.*),"sum":(\d+)\}\n$/.exec(text) ?? [];
  if (Number(sum) !== crc32(body)) return undefined;
  const { version, own, all } = JSON.parse(`${body}}`) as { version: number } & Note;
  if (version !== 1) throw newer(path, version);
  return { own, all };
};
