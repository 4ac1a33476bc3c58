import { describe, expect, test } from 'vitest';
import { event } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { FakeClock, recordingLog, recordingSink, scriptedSource, seededRandom } from '../../src/testing/index.ts';

const events = (count: number) => Array.from({ length: count }, (_, i) => event(String(i)));
const fake = () => new Scope({ clock: new FakeClock(), random: seededRandom(1), log: recordingLog() });

describe('the books balance', () => {
  test('while a delivery waits with one part in the channel and one outside', async () => {
    const scope = fake();
    const clock = scope.clock as FakeClock;
    const sink = recordingSink(['hold']);
    const source = scriptedSource([{ emit: events(10) }, 'idle']);
    const channel = memoryChannel({ capacity: 6, transactionCapacity: 5 });
    const flow = inScope(scope, () => run(source, channel, sink));
    await clock.advance(10);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 10, held: 10, delivered: 0 });
    expect(flow.ledger.difference).toBe(0);
    sink.received[0]?.settle('ack');
    await clock.settle(flow.stop());
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 10, held: 0, delivered: 10, copied: 0 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('when a partly put delivery is nacked because there is no room', async () => {
    const scope = fake();
    const clock = scope.clock as FakeClock;
    const sink = recordingSink(['hold']);
    const source = scriptedSource([{ emit: events(10) }, 'idle']);
    const channel = memoryChannel({ capacity: 6, transactionCapacity: 5, keepAlive: 1 });
    const flow = inScope(scope, () => run(source, channel, sink));
    await clock.advance(1500);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 10, held: 10 });
    expect(flow.ledger.difference).toBe(0);
    sink.received[0]?.settle('ack');
    await clock.settle(flow.stop());
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 10, delivered: 10, copied: 0 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('when the parts of a part are settled after their origin was taken back', async () => {
    const scope = fake();
    const clock = scope.clock as FakeClock;
    const sink = recordingSink(['hold']);
    const flow = inScope(scope, () => run(scriptedSource([{ emit: events(3) }]), sink));
    flow.done.catch(() => undefined);
    await clock.flush();
    const delivery = sink.received[0]?.delivery;
    const [first, rest] = delivery?.fork([delivery.events.slice(0, 1), delivery.events.slice(1)]) ?? [];
    const parts = rest?.fork(rest.events.map(one => [one])) ?? [];
    flow.ledger.delivered++;
    first?.ack();
    expect([flow.ledger.held, flow.ledger.difference]).toEqual([2, 0]);
    flow.abort();
    await clock.flush();
    for (const part of parts) expect(part.ack()).toBe(false);
    expect(flow.ledger.snapshot()).toMatchObject({ held: 0, delivered: 1, copied: 1, settledTwice: 0 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('when an event is in a batch twice, as behind a redelivery, and fails', async () => {
    const scope = fake();
    const clock = scope.clock as FakeClock;
    const [a, b] = [event('a'), event('b')];
    const sink = recordingSink([{ outcome: 'nack', failed: [0] }]);
    const flow = inScope(scope, () => run(scriptedSource([{ emit: [a, a, b] }]), sink));
    await clock.flush();
    expect(flow.ledger.snapshot()).toMatchObject({ held: 2, delivered: 1 });
    await clock.settle(flow.done);
    expect(sink.received.map(({ events: all }) => all)).toEqual([
      [a, a, b],
      [a, a],
    ]);
    expect(flow.ledger.difference).toBe(0);
  });

  test('on both sides of a channel between two flows: what one delivers the other accepts', async () => {
    const [scope, behind] = [fake(), fake()];
    const clock = scope.clock as FakeClock;
    const channel = inScope(behind, () => memoryChannel.create({ capacity: 100 }));
    const flow = inScope(scope, () => run(scriptedSource([{ emit: events(10) }]), channel.input()));
    await clock.settle(flow.done);
    await clock.flush();
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 10, delivered: 10, held: 0 });
    expect(behind.ledger.snapshot()).toMatchObject({ accepted: 10, held: 10 });
    expect([flow.ledger.difference, behind.ledger.difference]).toEqual([0, 0]);
  });
});
