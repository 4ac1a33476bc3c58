/**
 * Waits that end early when a client is closed.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { backoffDelay, systemRandom } from '../../core/clock.ts';

/** Waits, but not longer than until it is closed. */
export const wait = (ms: number, closed: AbortSignal): Promise<void> =>
  sleep(ms, undefined, { signal: closed }).catch(() => undefined);

/** The wait after so many failures, in ms: doubles up to `most`, the half of it by chance. */
export const waitAfter = (failures: number, most: number): number =>
  backoffDelay({ initial: 100, max: most }, failures, systemRandom);
