/**
 * `rebatch`: larger or smaller batches than came in.
 *
 * @module
 */
import { Observable, type OperatorFunction } from 'rxjs';
import type { Timer } from '../core/clock.ts';
import { creditOf, join, own, settle, type Delivery } from '../core/delivery.ts';
import type { Batch, FlumeEvent } from '../core/event.ts';
import { currentScope } from '../core/scope.ts';
import { InTurn, unsubscribed } from './in-turn.ts';

export interface RebatchOptions {
  /** Events of a batch at most; one that has so many leaves at once. */
  readonly maxEvents: number;
  /** Bytes of a batch at most, bodies and headers; a larger event goes alone. Default: no limit. */
  readonly maxBytes?: number;
  /**
   * How long an event waits for others at most, in ms. There is no default: without a limit in time, a source that may
   * have fewer events unsettled than a batch takes would wait for ever (law L2).
   */
  readonly maxDelay: number;
}

/**
 * Joins small deliveries and cuts large ones, in order; each is acked when all batches that hold some of it are.
 *
 * **emits** a batch that is full, or `maxDelay` after its first event came, or at once when its source may have no more
 * unsettled, or when its flow is being stopped · **pauses** by not settling ·
 * **completes** after its source, having emitted what it holds · **errors** with its source.
 * Keeps order; a nack or reject concerns the failed events only. Unsubscribed, it nacks what it holds. Behind `merge` or
 * `keyed`, a batch may hold events of several emitters: after a nack of one, it may bring that one's later events too early.
 */
export const rebatch =
  <T = FlumeEvent>({
    maxEvents,
    maxBytes = Infinity,
    maxDelay,
  }: RebatchOptions): OperatorFunction<Delivery<T>, Delivery<T>> =>
  source =>
    new Observable(subscriber => {
      const scope = currentScope();
      const { clock } = scope;
      const down = new InTurn(subscriber);
      let held: Delivery<T>[] = [];
      let events = 0;
      let bytes = 0;
      let timer: Timer;

      const takeHeld = () => {
        const taken = held;
        held = [];
        events = bytes = 0;
        clock.cancel(timer);
        timer = undefined;
        return taken;
      };

      const flush = () => {
        // What was overtaken while it waited will come again.
        const live = takeHeld().filter(delivery => delivery.live || delivery.nack(unsubscribed()));
        if (live.length === 0) return;
        const joined = join(live);
        // Acking some of them lets the next ones in, which must not leave before the others are known to have failed.
        down.next(own(joined, joined.batch, (...told) => down.after(() => settle(joined, ...told))));
      };

      const add = (delivery: Delivery<T>) => {
        const size = sizeWithin(delivery.batch, maxBytes);
        if (events > 0 && (events + delivery.length > maxEvents || bytes + size > maxBytes)) flush();
        held.push(delivery);
        events += delivery.length;
        bytes += size;
        if (events >= maxEvents || bytes >= maxBytes) flush();
        else timer ??= clock.after(scope.stopping ? 0 : maxDelay, flush);
      };

      /** True when no more can come: the emitter's credit is used up, and all of it is held here. */
      const inVain = (newest: Delivery<T>) => {
        const credit = creditOf(newest);
        return (
          credit?.used === true && held.filter(one => creditOf(one) === credit && one.live).length >= credit.deliveries
        );
      };

      const most = (batch: Batch<T>) => Math.max(1, batch.fitting(maxEvents, maxBytes));

      /** The first piece fills up what is held, the others are as large as may be. */
      const cut = (batch: Batch<T>) => {
        const pieces: Batch<T>[] = [];
        let rest = batch;
        let count = rest.fitting(maxEvents - events, maxBytes - bytes) || most(rest);
        while (count < rest.length) {
          const [piece, after] = rest.split(count);
          pieces.push(piece);
          rest = after;
          count = most(rest);
        }
        pieces.push(rest);
        return pieces;
      };

      const forget = scope.whenStopping(flush);
      const upstream = source.subscribe({
        next: delivery => {
          const pieces = cut(delivery.batch);
          for (const part of pieces.length === 1 ? [delivery] : delivery.fork(pieces)) {
            if (subscriber.closed) part.nack(unsubscribed());
            else add(part);
          }
          if (held.length > 0 && inVain(delivery)) flush();
        },
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => {
          flush();
          down.complete();
        },
      });
      return () => {
        forget();
        upstream.unsubscribe();
        for (const delivery of takeHeld()) delivery.nack(unsubscribed());
      };
    });

/** Nobody counts bytes without a limit: it means looking at every event. */
const sizeWithin = (batch: Batch<unknown>, limit: number): number => (limit === Infinity ? 0 : batch.byteLength);
