import { describe, expect, it } from 'vitest';
import { createSink, run, seqSource } from '../../src/index.ts';

describe('seq source', () => {
  it('counts, in batches, and completes', async () => {
    const batches: string[][] = [];
    await run(
      seqSource({ totalEvents: 7, batchSize: 3 }),
      createSink(events => void batches.push(events.map(({ body }) => body.toString()))),
    ).done;
    expect(batches).toEqual([['0', '1', '2'], ['3', '4', '5'], ['6']]);
  });

  it('completes at once when there is nothing to count', async () => {
    const flow = run(
      seqSource({ totalEvents: 0 }),
      createSink(() => undefined),
    );
    await flow.done;
    expect(flow.ledger.accepted).toBe(0);
  });

  it('repeats the number that was not taken', async () => {
    const written: string[] = [];
    let failures = 3;
    await run(
      seqSource({ totalEvents: 4, redelivery: { initial: 1 } }),
      createSink(
        ([one]) => {
          if (one!.body.toString() === '2' && failures-- > 0) throw new Error('not now');
          written.push(one!.body.toString());
        },
        { retry: { attempts: 1 } },
      ),
    ).done;
    expect(written).toEqual(['0', '1', '2', '3']);
  });
});
