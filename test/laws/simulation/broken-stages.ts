/**
 * Stages that break one promise each: what a hurried author would write, and what the laws have to find.
 */
import { Observable, type OperatorFunction, type Subscriber } from 'rxjs';
import { own, type Delivery } from '../../../src/core/delivery.ts';
import { event } from '../../../src/core/event.ts';
import { currentScope } from '../../../src/core/scope.ts';

type Stage = OperatorFunction<Delivery, Delivery>;

/** A stage of a function that is called for each delivery, and one for the end. */
const stage =
  (
    make: (down: Subscriber<Delivery>) => { next: (delivery: Delivery) => void; complete?: () => void },
  ): (() => Stage) =>
  () =>
  source =>
    new Observable(down => {
      const { next, complete = () => down.complete() } = make(down);
      return source.subscribe({ next, complete, error: (cause: unknown) => down.error(cause) });
    });

export const brokenStages = {
  /** Acks what it holds, and forgets it when it is told to end. */
  losesOnStop: stage(down => {
    let held: Delivery | undefined;
    const { clock } = currentScope();
    const flush = () => {
      if (held !== undefined) down.next(held);
      held = undefined;
    };
    return {
      next: delivery => {
        flush();
        held = own(delivery, delivery.batch, () => true);
        delivery.ledger.delivered += delivery.length;
        delivery.ack();
        clock.after(50, flush, true);
      },
    };
  }),

  /** What fails below is acked above. */
  swallowsNack: stage(down => ({
    next: delivery => down.next(own(delivery, delivery.batch, () => delivery.ack())),
  })),

  /** Acks before anybody has written it. */
  acksEarly: stage(down => ({
    next: delivery => {
      const copy = own(delivery, delivery.batch, () => true);
      if (delivery.ack()) down.next(copy);
    },
  })),

  /** More than two at a time are too many. */
  dropsUnderPressure: stage(down => {
    let unsettled = 0;
    return {
      next: delivery => {
        if (unsettled >= 2) {
          delivery.ack();
          return;
        }
        unsettled++;
        down.next(
          own(delivery, delivery.batch, (outcome, cause = new Error('none'), failed) => {
            unsettled--;
            if (outcome === 'ack') return delivery.ack();
            return delivery[outcome](cause, failed as typeof delivery.events);
          }),
        );
      },
    };
  }),

  /** Every third delivery leaves twice. */
  duplicates: stage(down => {
    let count = 0;
    return {
      next: delivery => {
        if (++count % 3 !== 0) down.next(delivery);
        else for (const part of delivery.fork([delivery.events, delivery.events])) down.next(part);
      },
    };
  }),

  /** The events of a delivery leave last first. */
  reorders: stage(down => ({ next: delivery => down.next(delivery.derive([...delivery.events].reverse())) })),

  /** Takes the last byte of every tenth event. */
  truncates: stage(down => {
    let count = 0;
    const cut = (one: Delivery['events'][number]) =>
      ++count % 10 === 0 ? event(one.body.subarray(0, -1), one.headers) : one;
    return { next: delivery => down.next(delivery.derive(delivery.events.map(cut))) };
  }),

  /** Drops events with an odd length without telling anybody. */
  dropsUncounted: stage(down => ({
    next: delivery => {
      const rest = delivery.events.filter(one => one.body.length % 2 === 0);
      if (rest.length === delivery.length) down.next(delivery);
      else if (rest.length > 0) down.next(delivery.fork([rest])[0] as Delivery);
      else delivery.ack();
    },
  })),

  /** Waits for two more, however long that takes. */
  waitsForMore: stage(down => {
    const held: Delivery[] = [];
    const flush = () => held.splice(0).forEach(delivery => down.next(delivery));
    return {
      next: delivery => {
        if (held.push(delivery) === 3) flush();
      },
      complete: () => {
        flush();
        down.complete();
      },
    };
  }),

  /** One at a time; what a nack ends does not let the next one in. */
  losesWakeUp: stage(down => {
    const waiting: Delivery[] = [];
    let busy = false;
    let ended = false;
    const pump = () => {
      while (!busy && waiting.length > 0) {
        const delivery = waiting.shift() as Delivery;
        busy = true;
        down.next(
          own(delivery, delivery.batch, (outcome, cause = new Error('none'), failed) => {
            if (outcome !== 'ack') return delivery[outcome](cause, failed as typeof delivery.events);
            busy = false;
            const settled = delivery.ack();
            pump();
            return settled;
          }),
        );
      }
      if (ended && !busy) down.complete();
    };
    return {
      next: delivery => {
        waiting.push(delivery);
        pump();
      },
      complete: () => {
        ended = true;
        pump();
      },
    };
  }),

  /** Acks what passes, and settles it again with the sink. */
  settlesTwice: stage(down => ({
    next: delivery => {
      down.next(delivery);
      delivery.ack();
    },
  })),

  /** A tick that nobody stops. */
  leavesTimer: stage(down => {
    const { clock } = currentScope();
    const tick = () => void clock.after(1000, tick);
    tick();
    return { next: delivery => down.next(delivery) };
  }),

  /** Bad data breaks the flow. */
  errors: stage(down => ({
    next: delivery => {
      if (delivery.attempt > 1) down.error(new Error('I have seen this before'));
      else down.next(delivery);
    },
  })),

  /** Says that it is complete while deliveries are under way. */
  completesEarly: stage(down => {
    const { clock } = currentScope();
    let under = 0;
    return {
      next: delivery => {
        under++;
        clock.after(20, () => {
          under--;
          down.next(delivery);
        });
        if (under > 1) down.complete();
      },
    };
  }),
} satisfies Record<string, () => Stage>;
