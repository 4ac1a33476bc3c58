/**
 * A stage that hands everything on, which can be broken in one place each. Whole, it keeps all laws.
 */
import { Observable, type OperatorFunction } from 'rxjs';
import { join, type Delivery } from '../../../src/core/delivery.ts';
import { event, headers, type FlumeEvent } from '../../../src/core/event.ts';
import { answering, credulous, settle } from './deliveries.ts';

export const stageFaults = {
  'acks when it hands on': 'S2',
  'acks what is nacked': 'S4',
  'acks when the first part is acked': 'S2',
  'drops deliveries without a word': 'L1',
  'acks some deliveries instead of handing them on': 'S4',
  'filters without counting': 'X1',
  'lets a delivery be settled twice': 'S1',
  'settles a delivery twice': 'S1',
  'invents an event': 'S5',
  'changes a header': 'S5',
  'writes into the body': 'S5',
  'swaps neighbours': 'S6',
  'sends what is nacked round again': 'L1',
  'emits from within next': 'L1',
  'stops after a nack': 'L1',
  'waits for three deliveries': 'L2',
  'completes after five deliveries': 'L3',
  'never completes': 'L3',
  'takes settlements of sessions that are over': 'S7',
} as const;
export type StageFault = keyof typeof stageFaults;

/** What is broken takes the place of `next`, and may want to know when the source completes. */
type Broken = (next: (delivery: Delivery) => void, complete: () => void) => (delivery: Delivery) => void;

const mapped =
  (change: (one: FlumeEvent, at: number) => FlumeEvent): Broken =>
  next =>
  delivery =>
    next(delivery.derive(delivery.events.map(change)));

const whole: Broken = next => delivery => next(delivery.derive(delivery.events));

const broken: Record<StageFault, Broken> = {
  'acks when it hands on': next => delivery => {
    next(answering(delivery, () => true));
    delivery.ack();
  },
  'acks what is nacked': next => delivery =>
    next(
      answering(delivery, (one, outcome, cause, failed) =>
        settle(one, outcome === 'nack' ? 'ack' : outcome, cause, failed),
      ),
    ),
  'acks when the first part is acked': next => delivery => {
    if (delivery.length === 1) return next(delivery.derive(delivery.events));
    const [first, ...rest] = delivery.events;
    let open = true;
    for (const part of [[first!], rest])
      next(
        answering(delivery.derive(part), (_, outcome, cause) => {
          if (!open) return true;
          open = false;
          return settle(delivery, outcome, cause, undefined);
        }),
      );
  },
  'drops deliveries without a word': next => {
    let count = 0;
    return delivery => {
      if (++count % 4 > 0) next(delivery);
    };
  },
  'acks some deliveries instead of handing them on': next => {
    let count = 0;
    return delivery => {
      if (++count % 4 > 0) return next(delivery);
      delivery.ledger.filtered += delivery.length;
      delivery.ack();
    };
  },
  'filters without counting': next => delivery => {
    if (delivery.length === 1 && delivery.events[0]!.body.length % 2 === 0) delivery.ack();
    else next(delivery);
  },
  'lets a delivery be settled twice': next => delivery => next(credulous(delivery, 'settled')),
  'settles a delivery twice': next => delivery =>
    next(
      answering(delivery, (one, ...outcome) => {
        const settled = settle(one, ...outcome);
        one.ack();
        return settled;
      }),
    ),
  'invents an event': next => delivery => next(delivery.derive([...delivery.events, event('a ghost')])),
  'changes a header': mapped(one => ({ ...one, headers: headers({ ...one.headers, stage: 'here' }) })),
  'writes into the body': mapped(one => {
    if (one.body.length > 8) one.body[8] = one.body[8]! ^ 1;
    return one;
  }),
  'swaps neighbours': next => delivery => next(delivery.derive([...delivery.events].reverse())),
  'sends what is nacked round again': next => {
    const hand = (delivery: Delivery) =>
      next(
        answering(delivery, (one, outcome, cause, failed) => {
          if (outcome !== 'nack' || !one.live) return settle(one, outcome, cause, failed);
          hand(one.derive(one.events));
          return true;
        }),
      );
    return hand;
  },
  'emits from within next': next => delivery => {
    const parts = delivery.fork(delivery.events.map(one => [one]));
    const hand = (at: number) => {
      const part = parts[at];
      if (part === undefined) return;
      next(
        answering(part, (one, ...outcome) => {
          const settled = settle(one, ...outcome);
          hand(at + 1);
          return settled;
        }),
      );
    };
    hand(0);
  },
  'stops after a nack': next => {
    let stopped = false;
    return delivery => {
      if (stopped) return;
      next(
        answering(delivery, (one, outcome, cause, failed) => {
          if (outcome === 'nack') stopped = true;
          return settle(one, outcome, cause, failed);
        }),
      );
    };
  },
  'waits for three deliveries': next => {
    let waiting: Delivery[] = [];
    return delivery => {
      waiting = [...waiting.filter(({ live }) => live), delivery];
      if (waiting.length < 3) return;
      next(join(waiting));
      waiting = [];
    };
  },
  'completes after five deliveries': (next, complete) => {
    let count = 0;
    return delivery => {
      next(delivery);
      if (++count === 5) complete();
    };
  },
  'never completes': whole,
  'takes settlements of sessions that are over': next => delivery => next(credulous(delivery, 'over')),
};

export const brokenStage =
  (fault?: StageFault): OperatorFunction<Delivery, Delivery> =>
  source =>
    new Observable(subscriber => {
      const next = (fault === undefined ? whole : broken[fault])(
        delivery => subscriber.next(delivery),
        () => subscriber.complete(),
      );
      return source.subscribe({
        next,
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => {
          if (fault !== 'never completes') subscriber.complete();
        },
      });
    });
