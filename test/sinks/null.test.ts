import { expect, it } from 'vitest';
import { nullSink, run, seqSource } from '../../src/index.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { recordingLog } from '../../src/testing/index.ts';

it('null sink: discards, counts, and says now and then how many', async () => {
  const log = recordingLog();
  const flow = inScope(new Scope({ log }), () =>
    run(seqSource({ totalEvents: 25, batchSize: 4 }), nullSink({ logEveryNEvents: 10 })),
  );
  await flow.done;
  expect(flow.ledger.snapshot()).toMatchObject({ accepted: 25, delivered: 25, held: 0 });
  expect(log.entries.map(({ message }) => message)).toEqual([
    'null has discarded 12 events.',
    'null has discarded 20 events.',
  ]);
});
