/**
 * A clock that only moves when it is told to. Everything that waits on it happens in one order, which the test decides.
 *
 * @module
 */
import { setImmediate as turn } from 'node:timers/promises';
import { longestWait, type Clock, type Timer } from '../core/clock.ts';

interface Alarm {
  readonly at: number;
  readonly callback: () => void;
  readonly background: boolean;
}

/** Steps without time passing before the clock says that somebody runs in circles. */
const mostAtOnce = 100_000;

/**
 * A {@link Clock} for tests. Callbacks run in the order of their time, then in the order in which they were asked for; all
 * microtasks drain between two of them, as in a real event loop. `soon` comes before timers that are due at the same time.
 *
 * Background timers fire when time passes them, but nobody waits for them: they are not {@link pending} work.
 */
export class FakeClock implements Clock {
  #now: number;
  /** By time, then by order of asking. */
  readonly #alarms: Alarm[] = [];
  #soon: (() => void)[] = [];

  /** `start` in ms since the epoch. */
  constructor(start: number = Date.UTC(2024, 0, 1)) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  after(ms: number, callback: () => void, background = false): Timer {
    if (Number.isNaN(ms)) throw new RangeError('a timer takes a number of milliseconds');
    const alarm: Alarm = { at: this.#now + Math.min(Math.max(0, ms), longestWait), callback, background };
    this.#alarms.splice(this.#alarms.findLastIndex(other => other.at <= alarm.at) + 1, 0, alarm);
    return alarm;
  }

  cancel(timer: Timer): void {
    const at = this.#alarms.indexOf(timer as Alarm);
    if (at >= 0) this.#alarms.splice(at, 1);
  }

  soon(callback: () => void): void {
    this.#soon.push(callback);
  }

  /** Callbacks that somebody waits for. */
  get pending(): number {
    return this.#soon.length + this.#alarms.filter(alarm => !alarm.background).length;
  }

  /** Does what is due, and what follows from it, without time passing. */
  async flush(): Promise<void> {
    await this.advance(0);
  }

  /** Lets `ms` milliseconds pass, and everything happen that is due in them. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.#run(end, () => false);
    this.#now = end;
  }

  /** Lets time pass until `condition` holds, for at most `limit` ms of this clock's time; false if it still does not. */
  async until(condition: () => boolean, limit = 3_600_000): Promise<boolean> {
    const end = this.#now + limit;
    await this.#run(end, condition);
    if (condition()) return true;
    this.#now = end;
    return false;
  }

  /** Lets time pass until nobody waits for anything. Throws if that takes more than `limit` ms of this clock's time. */
  async runUntilIdle(limit = 3_600_000): Promise<void> {
    if (await this.until(() => this.pending === 0, limit)) return;
    throw new Error(`${this.pending} timers still wait after ${limit} ms`);
  }

  /**
   * Lets time pass until `promise` is settled, and gives its outcome. Throws when it is not settled and nobody waits for
   * anything any more (a lost wake-up), or after `limit` ms of this clock's time.
   */
  async settle<R>(promise: Promise<R>, limit = 3_600_000): Promise<R> {
    const state = { settled: false };
    const end = () => (state.settled = true);
    promise.then(end, end);
    const start = this.#now;
    const over = await this.until(() => state.settled || this.pending === 0, limit);
    if (state.settled) return promise;
    throw new Error(
      over
        ? `stuck: ${this.#now - start} ms have passed, nothing is under way, and the promise is not settled`
        : `not settled after ${limit} ms`,
    );
  }

  /** One callback after the other, up to and including time `end`, until `enough`. */
  async #run(end: number, enough: () => boolean): Promise<void> {
    await turn();
    for (let steps = 0; !enough();) {
      const before = this.#now;
      const callback = this.#next(end);
      if (callback === undefined) return;
      steps = this.#now > before ? 0 : steps + 1;
      if (steps > mostAtOnce) throw new Error(`busy: ${steps} callbacks have run without time passing`);
      callback();
      await turn();
    }
  }

  #next(end: number): (() => void) | undefined {
    const soon = this.#soon.shift();
    if (soon !== undefined) return soon;
    const [alarm] = this.#alarms;
    if (alarm === undefined || alarm.at > end) return undefined;
    this.#alarms.shift();
    this.#now = Math.max(this.#now, alarm.at);
    return alarm.callback;
  }
}
