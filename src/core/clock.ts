/**
 * Time and chance as ports. Core never reads the system's clock, so that tests own time and a seed decides everything.
 *
 * @module
 */

/** What a timer can be cancelled with. */
export type Timer = unknown;

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls back once after `ms` milliseconds, at most {@link longestWait}. A `background` timer does not keep a process alive. */
  after(ms: number, callback: () => void, background?: boolean): Timer;
  cancel(timer: Timer): void;
  /** Calls back soon, but lets pending I/O go first. */
  soon(callback: () => void): void;
}

/** The longest wait of a timer in ms, 24.8 days; who asks for more gets this. `setTimeout` would call back at once. */
export const longestWait = 2 ** 31 - 1;

/* eslint-disable no-restricted-properties -- the one place where the real clock and real chance come in */
export const systemClock: Clock = {
  now: () => Date.now(),
  after: (ms, callback, background = false) => {
    const timer = setTimeout(callback, Math.min(ms, longestWait));
    return background ? timer.unref() : timer;
  },
  cancel: timer => clearTimeout(timer as NodeJS.Timeout),
  soon: callback => void setImmediate(callback),
};

export const systemRandom = (): number => Math.random();
/* eslint-enable no-restricted-properties */

/** How long to wait before trying again: doubles from `initial` up to `max`, both in milliseconds. */
export interface Backoff {
  readonly initial: number;
  readonly max: number;
}

/** The wait before attempt `attempt + 1`. Half of it is jitter, so that many waiters do not come back at once. */
export const backoffDelay = ({ initial, max }: Backoff, attempt: number, random: () => number): number => {
  const full = Math.min(max, initial * 2 ** Math.min(attempt - 1, 30));
  return Math.ceil(full / 2 + (full / 2) * random());
};
