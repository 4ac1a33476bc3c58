/**
 * The file channel: Flume's `file`. What it has confirmed survives a crash of the process and of the machine.
 *
 * @module
 */
import { z } from 'zod';
import { defineChannel, type EventChannel, type Store } from '../../core/channel.ts';
import { MillraceError } from '../../core/errors.ts';
import { choice, fieldInfo, flag, int, list, map, path, text, withHome } from '../../core/options.ts';
import { Codec } from '../../log/codec.ts';
import type { Fsync } from '../../log/log.ts';
import { FileStore } from './file-store.ts';
import { keepAlive } from './limits.ts';

/** `commit`, `never` or `{ interval }`, in code; a file has Flume's two keys for it. */
const fsyncOption = (() => {
  const schema = z
    .union([z.literal(['commit', 'never']), z.object({ interval: z.int().min(1) }).strict()])
    .optional() as z.ZodOptional<z.ZodType<Fsync, Fsync>>;
  fieldInfo.set(schema, {
    kind: 'function',
    inFile: false,
    summary:
      'When a batch counts as safe: `commit` when the disk has it, `never` when the operating system has it, `{ interval }` likewise, and the disk after so many ms at most. Default `commit`.',
  });
  return schema;
})();

/** The options of a log, which the spillable channel has as well. */
export const logOptions = {
  dir: path('One directory for everything, instead of checkpointDir and dataDirs. Each channel needs its own.', {
    optional: true,
    exclusive: true,
  }),
  checkpointDir: path('Where it is kept what was delivered.', {
    optional: true,
    agentDefault: '~/.flume/file-channel/checkpoint',
    exclusive: true,
  }),
  dataDirs: list('Where the events are kept; several are used in turn.', {
    optional: true,
    agentDefault: ['~/.flume/file-channel/data'],
  }),
  checkpointInterval: int('How often it is made safe from a power cut what was delivered.', {
    default: 30_000,
    min: 1,
    unit: 'ms',
  }),
  maxFileSize: int('Bytes from which on a data file is full. Small files are given back sooner.', {
    default: 64 * 1024 * 1024,
    min: 4096,
    max: 1_623_195_647,
    unit: 'bytes',
  }),
  minimumRequiredSpace: int('Bytes that stay free on the disk: with less, puts fail and are tried again.', {
    default: 524_288_000,
    min: 0,
    unit: 'bytes',
  }),
  fsync: fsyncOption,
  fsyncPerTransaction: flag("Flume's name for fsync `commit`; false is `{ interval }`.", { default: true }),
  fsyncInterval: int('How often the disk is asked to have everything, without fsyncPerTransaction.', {
    default: 5,
    min: 1,
    unit: 's',
  }),
  cacheBytes: int(
    'Bytes of batches that are kept in memory as well, so that a sink that keeps up never reads the disk.',
    {
      default: 16 * 1024 * 1024,
      min: 0,
      unit: 'bytes',
    },
  ),
  compression: choice(['none', 'gzip', 'zstd'])(
    'How batches are compressed; zstd needs Node.js 22.15. What does not become smaller stays as it is.',
    { default: 'none' },
  ),
  encryptionActiveKey: text('The key for new data files, by name. Without it they are not encrypted.', {
    flume: 'encryption.activeKey',
    optional: true,
  }),
  encryptionKeys: map(
    'Keys by name: file:<path> or env:<variable>, 32 bytes each, raw, hexadecimal or base64. Old files are read with the key that they name.',
    { flume: 'encryption.keys.*', default: {} },
  ),
} as const;

const options = z.object({
  ...logOptions,
  capacity: int('The most events it holds, taken and not yet acked ones included.', {
    default: 1_000_000,
    min: 1,
    unit: 'events',
  }),
  byteCapacity: int('The most bytes it holds, bodies and headers. Default: as many as the disk has.', {
    optional: true,
    min: 1,
    unit: 'bytes',
  }),
  transactionCapacity: int('The most events of one put or one delivery.', { default: 10_000, min: 1, unit: 'events' }),
  keepAlive,
});
export type FileChannelOptions = z.input<typeof options>;

/** What a log is told, from the options of a channel of this type. */
export const logOptionsOf = (type: string, given: z.output<z.ZodObject<typeof logOptions>>) => {
  const { dir, checkpointDir = dir, dataDirs = dir === undefined ? undefined : [dir], fsync } = given;
  if (checkpointDir === undefined || dataDirs === undefined || dataDirs.length === 0)
    throw new MillraceError('MR_CONFIG', `${type}: it needs dir, or checkpointDir and dataDirs.`);
  const { fsyncPerTransaction, fsyncInterval, checkpointInterval, maxFileSize, minimumRequiredSpace, cacheBytes } =
    given;
  return {
    checkpointDir,
    dataDirs: dataDirs.map(withHome),
    fsync: fsync ?? (fsyncPerTransaction ? ('commit' as const) : { interval: 1000 * fsyncInterval }),
    checkpointInterval,
    maxFileSize,
    minimumRequiredSpace,
    cacheBytes,
    codec: new Codec({
      compression: given.compression,
      activeKey: given.encryptionActiveKey,
      keys: given.encryptionKeys,
    }),
  };
};

/**
 * Holds events in files between a source and a sink, in `dir`, or in `checkpointDir` and `dataDirs`.
 *
 * **acks** when the disk has the delivery; deliveries that wait together are made safe together · **pauses** its source while
 * it is full, and nacks after `keepAlive`, or when the disk does not take it · **redelivers** what a sink nacks, first in
 * line, and after a crash what was not acked, or not long enough ago · **completes** when its input has and all was acked ·
 * **errors** when the directories cannot be opened: `MR_LOCKED`, `MR_FOREIGN_FILES`, `MR_NEWER_FORMAT`, `MR_WRONG_KEY`,
 * `MR_IO` ·
 * **loses** nothing that it has acked, with `fsync: 'commit'`; else a power cut takes what the disk did not have yet.
 *
 * Events that cannot be read any more are reported as `MR_DATA_LOST` with their numbers, counted as `LostEventCount`, and
 * their file is kept aside. The format of the files is in src/log/format.ts.
 */
export const fileChannel: EventChannel<typeof options> = defineChannel({
  type: 'file',
  className: 'org.apache.flume.channel.file.FileChannel',
  summary: 'Holds events in files; what it has confirmed survives any crash.',
  options,
  open: <T>(given: z.output<typeof options>): Store<T> => {
    const { capacity, byteCapacity = Number.MAX_SAFE_INTEGER } = given;
    const store = new FileStore({
      ...logOptionsOf('file', given),
      capacity: { events: capacity, bytes: byteCapacity },
    });
    return store as Store<unknown> as Store<T>;
  },
});
