/**
 * Options that several channels have, said once.
 *
 * @module
 */
import { getHeapStatistics } from 'node:v8';
import type { z } from 'zod';
import { int } from '../../core/options.ts';

export const keepAlive = int(
  'How long a put waits for room before it is nacked. In code the default is: as long as it takes.',
  { flume: 'keep-alive', optional: true, agentDefault: 3, min: 0, unit: 's' },
);

/** Of channels that hold events in memory. */
export const memoryLimits = {
  byteCapacity: int('The most bytes it holds in memory, bodies and headers. Default: 80 % of the heap limit.', {
    optional: true,
    min: 1,
    unit: 'bytes',
  }),
  byteCapacityBufferPercentage: int('How much of byteCapacity is left free.', {
    default: 20,
    min: 0,
    max: 99,
    unit: '%',
  }),
} as const;

/** Bytes in memory, at most. */
export const memoryBytes = ({
  byteCapacity = Math.floor(0.8 * getHeapStatistics().heap_size_limit),
  byteCapacityBufferPercentage,
}: z.output<z.ZodObject<typeof memoryLimits>>): number =>
  Math.floor(byteCapacity * (1 - byteCapacityBufferPercentage / 100));
