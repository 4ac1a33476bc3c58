/**
 * The options of whoever reads as a member of a group.
 *
 * @module
 */
import type { z } from 'zod';
import { choice, int, text } from '../../core/options.ts';
import type { GroupReaderOptions } from './group-reader.ts';
import type { OffsetReset } from './properties.ts';

export const groupFields = {
  groupId: text('The consumer group. Its members share the partitions.', {
    flume: 'kafka.consumer.group.id',
    formerly: 'groupId',
    default: 'flume',
  }),
  onPoison: choice(['stop', 'skip', 'pass'])(
    'What becomes of a record that cannot be understood, besides being reported and counted: nothing behind it in its partition is read (stop); it is left out (skip); or it is passed on as it is, with the header poison, which says what is wrong with it (pass).',
    { default: 'stop' },
  ),
  onOutOfRange: choice(['earliest', 'latest', 'fail'])(
    'Where to go on when what was to be read next was deleted, which is reported and counted. Default: as auto.offset.reset, if that is given; else earliest.',
    { optional: true },
  ),
  prefetchRecords: int(
    'Records in memory that wait to be delivered, at most, besides one fetch. Partitions share them.',
    {
      default: 50_000,
      min: 1,
      unit: 'records',
    },
  ),
  prefetchBytes: int('The same in bytes.', { default: 16 * 1024 * 1024, min: 1, unit: 'bytes' }),
  commitInterval: int('How often offsets are committed, at most; and when a partition is revoked, and at the end.', {
    default: 1000,
    min: 1,
    unit: 'ms',
  }),
  revokeTimeout: int(
    'How long a partition is kept, when the group wants it for another member, until what is out of it is acked. What is not comes twice.',
    { default: 2000, min: 0, unit: 'ms' },
  ),
};

/** `reset`: where a group begins that never committed. */
export const groupOptionsOf = (
  {
    onOutOfRange,
    onPoison,
    prefetchRecords,
    prefetchBytes,
    commitInterval,
    revokeTimeout,
  }: z.output<z.ZodObject<typeof groupFields>>,
  given: OffsetReset | undefined,
  usual: OffsetReset,
): GroupReaderOptions => ({
  reset: given ?? usual,
  onOutOfRange: onOutOfRange ?? (given === 'none' ? 'fail' : (given ?? 'earliest')),
  onPoison,
  prefetchRecords,
  prefetchBytes,
  commitInterval,
  revokeTimeout,
});
