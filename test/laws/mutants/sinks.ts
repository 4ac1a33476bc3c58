/**
 * A sink that writes into an array, which can be broken in one place each. Whole, it keeps all laws.
 */
import type { Delivery } from '../../../src/core/delivery.ts';
import { headers, type FlumeEvent } from '../../../src/core/event.ts';
import type { FlowSink } from '../../../src/core/flow.ts';
import { currentScope } from '../../../src/core/scope.ts';
import type { SinkUnderTest } from '../../../src/testing/index.ts';

export const sinkFaults = {
  'acks before it writes': 'S2',
  'acks what it could not write': 'S4',
  'loses what it holds when its destination fails': 'S4',
  'settles twice': 'S1',
  'writes an empty line': 'S5',
  'trims bodies': 'S5',
  'forgets headers': 'S5',
  'writes small batches first': 'S6',
  'waits for three events': 'L2',
  'stops after a failure': 'L1',
  'does not take a delivery while it writes': 'L1',
  'is done while it writes': 'L3',
  'is never done': 'L3',
  'leaves a timer behind': 'L3',
  'does not count what it writes': 'X1',
} as const;
export type SinkFault = keyof typeof sinkFaults;

const takesMs = 5;

export const brokenSink = (fault?: SinkFault): SinkUnderTest => {
  const is = (one: SinkFault) => one === fault;
  const { clock } = currentScope();
  const rows: FlumeEvent[] = [];
  let up = true;
  let line: Delivery[] = [];
  let writing = false;
  let ending = false;
  let over!: () => void;
  const done = new Promise<void>(resolve => (over = resolve));

  const changed = (one: FlumeEvent): FlumeEvent => {
    if (is('trims bodies')) return { ...one, body: Buffer.from(one.body.toString('latin1').trim(), 'latin1') };
    return is('forgets headers') ? { ...one, headers: headers({}) } : one;
  };

  const insert = ({ events }: Delivery) => {
    if (!up) throw new Error('down');
    rows.push(...events.map(changed));
    if (is('writes an empty line') && events.length > 4) rows.push({ headers: headers({}), body: Buffer.alloc(0) });
  };

  const settle = (delivery: Delivery) => {
    if (!is('does not count what it writes')) delivery.ledger.delivered += delivery.length;
    if (!delivery.ack()) delivery.ledger.delivered -= delivery.length;
    if (is('settles twice')) delivery.ack();
  };

  const end = () => {
    if (ending && !writing && line.length === 0 && !is('is never done')) over();
  };

  const work = () => {
    if (writing) return;
    if (is('writes small batches first')) line.sort((a, b) => a.length - b.length);
    if (is('waits for three events') && !ending && line.reduce((sum, { length }) => sum + length, 0) < 3) return;
    const delivery = line.shift();
    if (delivery === undefined) return end();
    writing = true;
    if (is('leaves a timer behind')) clock.after(1e6, () => undefined);
    if (is('acks before it writes')) settle(delivery);
    clock.after(takesMs, () => {
      writing = false;
      try {
        insert(delivery);
        if (!is('acks before it writes')) settle(delivery);
      } catch {
        if (is('acks what it could not write')) settle(delivery);
        else if (is('loses what it holds when its destination fails')) line = [];
        else line.unshift(delivery);
        if (is('stops after a failure')) return;
      }
      work();
    });
  };

  const complete = () => {
    ending = true;
    if (is('is done while it writes')) over();
    work();
  };

  const sink: FlowSink<FlumeEvent> = {
    next(delivery) {
      if (is('does not take a delivery while it writes') && writing) return;
      line.push(delivery);
      work();
    },
    error: complete,
    complete,
    done,
    abort() {
      for (const delivery of line) delivery.nack(new Error('aborted'));
      line = [];
      complete();
    },
  };
  return { sink, written: () => rows, switch: state => void (up = state) };
};
