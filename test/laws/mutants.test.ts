import { describe, expect, test } from 'vitest';
import type { FlumeEvent } from '../../src/core/event.ts';
import { channelLaws, sinkLaws, sourceLaws, stageLaws, type Law, type LawId } from '../../src/testing/index.ts';
import { brokenChannel, channelFaults, type ChannelFault } from './mutants/channels.ts';
import { brokenSink, sinkFaults, type SinkFault } from './mutants/sinks.ts';
import { brokenSource, sourceFaults, type SourceFault } from './mutants/sources.ts';
import { brokenStage, stageFaults, type StageFault } from './mutants/stages.ts';

/** Tables of faults, each with the law that has to catch it. */
const kits: Record<string, { faults: Readonly<Record<string, LawId>>; laws: (fault?: string) => Law[] }> = {
  sourceLaws: {
    faults: sourceFaults,
    laws: fault => sourceLaws({ name: fault ?? 'list', make: tuning => brokenSource(tuning, fault as SourceFault) }),
  },
  channelLaws: {
    faults: channelFaults,
    laws: fault => {
      const durable = fault?.startsWith('opens again') === true;
      return channelLaws<Set<FlumeEvent> | undefined>({
        name: fault ?? 'array',
        durable,
        place: () => (durable ? new Set() : undefined),
        make: (limits, disk) => brokenChannel(limits, fault as ChannelFault, disk),
      });
    },
  },
  stageLaws: {
    faults: stageFaults,
    laws: fault => stageLaws({ name: fault ?? 'as is', make: () => brokenStage(fault as StageFault) }),
  },
  sinkLaws: {
    faults: sinkFaults,
    laws: fault => sinkLaws({ name: fault ?? 'array', make: () => brokenSink(fault as SinkFault) }),
  },
};

const failureOf = (law: Law | undefined): Promise<string> =>
  law?.run().then(
    () => 'nothing',
    (error: unknown) => (error as Error).message,
  ) ?? Promise.resolve('no such law');

for (const [kit, { faults, laws }] of Object.entries(kits)) {
  describe(kit, () => {
    test.each(laws().map(law => [law.name, law] as const))('whole, it keeps %s', (_, law) => law.run());

    test.each(Object.entries(faults))('one that %s is caught by %s', async (fault, id) => {
      const message = await failureOf(laws(fault).find(law => law.id === id));
      expect(message).toContain(`${kit} of ${fault}: ${id}`);
      expect(message).toContain('broken:');
      expect(message).toContain('replay:');
    });
  });
}

const waits = () => stageLaws({ name: 'slow', make: () => brokenStage('waits for three deliveries') });

test('a failure is replayed from the line that it prints', async () => {
  const [law] = waits().filter(({ id }) => id === 'L2');
  const message = await failureOf(law);
  const [, seed, path] = /replay: stageLaws\(slow\) L2 run\(\{ seed: (\d+), path: "([\d:]+)" \}\)/.exec(message) ?? [];
  const program = /program: .*/.exec(message)?.[0];
  expect(program).toContain('put 1');
  await expect(law?.run({ seed: Number(seed), path: path ?? '' })).rejects.toThrow(program);
});

test('the same seed, the same failure; another one, perhaps another', async () => {
  const [law] = waits().filter(({ id }) => id === 'L2');
  expect(await failureOf(law)).toBe(await failureOf(law));
  await expect(law?.run({ seed: 2, runs: 50 })).rejects.toThrow('seed: 2,');
});

test('a law that was not put to the test does not pass', async () => {
  const limits = { capacity: 1_000_000, byteCapacity: 1e9 };
  const roomy = channelLaws({ name: 'roomy', limits, make: ample => brokenChannel(ample) });
  await expect(roomy.find(({ id }) => id === 'C1')?.run()).rejects.toThrow(/says nothing: .* not once a full channel/);
});
