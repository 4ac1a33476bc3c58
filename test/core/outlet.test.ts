import { describe, expect, test } from 'vitest';
import { run } from '../../src/core/flow.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { recordingSink, scriptedSource } from '../../src/testing/index.ts';
import { numbers, world } from './fakes.ts';

describe('Outlet', () => {
  // What is put into the room that a partial failure makes must not leave before what the failure took back.
  test.each(['keep', 'drop'] as const)('room made by a partial failure lets nothing overtake (%s)', async onReject => {
    const { clock, start } = world();
    const emits = [numbers(0, 3), numbers(4, 5), numbers(6, 9)].map(emit => ({ emit }));
    const sink = recordingSink<number>([{ outcome: 'reject', after: 5, failed: [0] }, 'hold']);
    const flow = start(() =>
      run(
        scriptedSource(emits),
        memoryChannel({
          capacity: 9,
          transactionCapacity: 4,
          maxInFlight: { deliveries: 2 },
          redelivery: { onReject },
        }),
        sink,
      ),
    );
    await clock.settle(flow.done);
    const again = onReject === 'keep' ? [0] : [];
    expect(sink.received.flatMap(({ events }) => events)).toEqual([...numbers(0, 5), ...again, ...numbers(4, 9)]);
  });
});
