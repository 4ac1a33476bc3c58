/**
 * Where a program is played: a clock, chance from a seed, and one set of books for all sessions.
 *
 * @module
 */
import { systemClock, type Clock } from '../../core/clock.ts';
import { Ledger } from '../../core/ledger.ts';
import { Scope, type Log } from '../../core/scope.ts';
import { FakeClock } from '../fake-clock.ts';
import { recordingLog } from '../recording-log.ts';
import { seededRandom } from '../seeded-random.ts';
import type { LawSpec } from './law.ts';

/** How often to look whether something has happened, on the real clock. */
const pollMs = 2;

/** How long a real socket or file gets to react. */
const reactionMs = 5;

/** Longer waits of a program are cut to this on the real clock. */
const longestWaitMs = 20;

/** The same as reactionMs, when it is known that there is something to react to. */
const longestReactionMs = 250;

export class World {
  readonly clock: Clock;
  readonly ledger = new Ledger();
  readonly log: Log = recordingLog();
  readonly patience: number;
  readonly #fake: FakeClock | undefined;
  readonly #random: () => number;

  constructor({ clock = 'fake', patience = clock === 'fake' ? 60_000 : 10_000 }: LawSpec, seed: number) {
    this.#fake = clock === 'fake' ? new FakeClock() : undefined;
    this.clock = this.#fake ?? systemClock;
    this.patience = patience;
    this.#random = seededRandom(seed);
  }

  /** For a new session: its own sources, but the same books. */
  scope(): Scope {
    return new Scope({ clock: this.clock, random: this.#random, log: this.log, ledger: this.ledger });
  }

  /** Timers that somebody waits for; on the real clock nobody knows. */
  get pending(): number {
    return this.#fake?.pending ?? 0;
  }

  /** Lets happen what is about to. */
  flush(): Promise<void> {
    return this.pass(0);
  }

  async pass(ms: number): Promise<void> {
    if (this.#fake !== undefined) return this.#fake.advance(ms);
    await new Promise<void>(resolve => void this.clock.after(Math.min(ms, longestWaitMs) + reactionMs, resolve));
  }

  /** Lets happen what is about to, which is over when `condition` holds; on the real clock that may take a moment. */
  async react(condition: () => boolean): Promise<void> {
    if (this.#fake !== undefined) return this.flush();
    const end = this.clock.now() + longestReactionMs;
    while (!condition() && this.clock.now() < end) await this.pass(0);
  }

  /** Lets time pass for something that was begun. Throws when patience is over. */
  async finish<R>(begun: R | Promise<R>, what: string): Promise<R> {
    if (!(begun instanceof Promise)) return begun;
    const state = { over: false };
    const end = () => (state.over = true);
    begun.then(end, end);
    if (await this.until(() => state.over)) return begun;
    throw new Error(`${what} is not over after ${this.patience} ms`);
  }

  /** Lets time pass until `condition` holds; false when patience is over. */
  async until(condition: () => boolean): Promise<boolean> {
    if (this.#fake !== undefined) return this.#fake.until(condition, this.patience);
    const end = this.clock.now() + this.patience;
    while (!condition()) {
      if (this.clock.now() > end) return false;
      await new Promise<void>(resolve => void this.clock.after(pollMs, resolve));
    }
    return true;
  }
}
