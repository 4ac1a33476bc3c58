/**
 * A source that plays a script, and remembers what became of everything it emitted.
 *
 * @module
 */
import type { Observable } from 'rxjs';
import type { Delivery } from '../core/delivery.ts';
import type { Batch, FlumeEvent } from '../core/event.ts';
import { createSource, type Settled, type SourceOptions } from '../core/source.ts';

/** One thing that a scripted source does. */
export type SourceStep<T = FlumeEvent> =
  /** Hands over one delivery. */
  | { readonly emit: readonly T[] | Batch<T> }
  /** Does nothing for that many milliseconds. */
  | { readonly wait: number }
  /** The session breaks. A new subscription goes on behind this step. */
  | { readonly fail: Error }
  /** Does nothing any more, so that only a stop ends it. Without it the source completes after its last step. */
  | 'idle';

/** What became of an emission: which `emit` step of the script (from 0), in which session (from 1). */
export interface SourceRecord {
  readonly emission: number;
  readonly session: number;
  readonly what: Settled;
  readonly cause: Error | undefined;
}

export interface ScriptedSource<T = FlumeEvent> extends Observable<Delivery<T>> {
  /** In the order of settlement. */
  readonly settled: readonly SourceRecord[];
  /** Every event that was handed over at least once, in order, once each. */
  readonly accepted: readonly T[];
  /** Emissions before this one are all acked or rejected: what a position file would say. */
  position(): number;
  /** How many sessions were opened and closed, and how often one was told to stop. */
  readonly sessions: { readonly opened: number; readonly stopped: number; readonly closed: number };
}

export interface ScriptedSourceOptions extends SourceOptions {
  /** Plays its steps without waiting for demand, as a source does that is fed from outside. */
  readonly pushing?: boolean;
}

/**
 * **emits** what the script says, with credit unless `pushing` · **completes** after the last step, when all is settled ·
 * **errors** at a `fail` step. A new subscription emits again, from {@link ScriptedSource.position} on, what was neither
 * acked nor rejected, and then goes on with the script.
 */
export const scriptedSource = <T = FlumeEvent>(
  script: readonly SourceStep<T>[],
  { pushing = false, ...options }: ScriptedSourceOptions = {},
): ScriptedSource<T> => {
  const emissions = script.filter(step => typeof step === 'object' && 'emit' in step);
  const done = new Set<number>();
  const settled: SourceRecord[] = [];
  const accepted: T[] = [];
  const sessions = { opened: 0, stopped: 0, closed: 0 };
  /** Steps that have been played; waits and failures happen once. */
  let played = 0;
  /** Emissions handed over at least once. */
  let reached = 0;

  const source = createSource<T, number>((emitter, { clock }) => {
    const session = ++sessions.opened;
    const again = Array.from({ length: reached }, (_, i) => i).filter(emission => !done.has(emission));
    let stopped = false;
    let timer: unknown;

    const hand = (emission: number) => {
      const { emit } = emissions[emission] as { emit: readonly T[] | Batch<T> };
      if (emission === reached) {
        reached++;
        accepted.push(...('events' in emit ? emit.events : emit));
      }
      emitter.emit(emit, emission);
    };
    /** Plays up to the next emission, and all of them if nobody asks. */
    const play = (): void => {
      if (stopped) return;
      const repeated = again.shift();
      if (repeated !== undefined) hand(repeated);
      else {
        const step = script[played];
        if (step === 'idle') return;
        if (step === undefined) return emitter.complete();
        played++;
        if ('fail' in step) return emitter.fail(step.fail);
        if ('wait' in step) {
          timer = clock.after(step.wait, play);
          return;
        }
        hand(reached);
      }
      if (pushing) play();
    };
    if (pushing) clock.soon(play);

    return {
      ...(!pushing && { pull: play }),
      settled(emission, what, cause) {
        if (what === 'acked' || what === 'rejected') done.add(emission);
        settled.push({ emission, session, what, cause });
      },
      stop() {
        stopped = true;
        sessions.stopped++;
        clock.cancel(timer);
      },
      close() {
        sessions.closed++;
      },
    };
  }, options);

  const position = () => {
    let first = 0;
    while (done.has(first)) first++;
    return first;
  };
  return Object.assign(source, { settled, accepted, sessions, position });
};
