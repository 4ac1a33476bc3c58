import { afterEach, expect, it } from 'vitest';
import { quietLog } from '../../../../src/core/scope.ts';
import { createClient } from '../../../../src/protocols/kafka/brokers/client.ts';
import { Cluster } from '../../../../src/protocols/kafka/brokers/cluster.ts';
import { Coordinator } from '../../../../src/protocols/kafka/brokers/coordinator.ts';
import { endTransaction } from '../../../../src/protocols/kafka/brokers/requests.ts';
import type { Answered, Request, Wires } from '../../../../src/protocols/kafka/brokers/wire.ts';
import { code } from '../../../../src/protocols/kafka/refused.ts';

const { NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, CONCURRENT_TRANSACTIONS, UNKNOWN_PRODUCER_ID } = code;
const request = endTransaction({ transactionalId: 'mine', id: 1n, epoch: 0 });
const busy = new Set([CONCURRENT_TRANSACTIONS]);

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** Two brokers. To each request, the codes that are answered one after the other; the last of them ever after. */
const brokers = (codes: Record<string, readonly number[]>) => {
  const asked: string[] = [];
  const wires: Wires = {
    wordsFor: of => ({ type: String(of), message: 'In words' }),
    open: ({ host }) => {
      const wire = {
        usable: true,
        connect: () => Promise.resolve(),
        async ask<Answer extends Answered>({ name }: Request<Answer>): Promise<Answer> {
          asked.push(`${host} ${name}`);
          const times = asked.filter(one => one.endsWith(` ${name}`)).length;
          const errorCode = (codes[name] ?? [0]).at(Math.min(times, codes[name]?.length ?? 1) - 1);
          const answer = {
            throttle: 0,
            errorCode,
            id: times % 2,
            host: times % 2 === 1 ? 'a' : 'b',
            port: 1,
            rights: 0,
          };
          return answer as unknown as Answer;
        },
        cut: () => void (wire.usable = false),
      };
      return wire;
    },
  };
  const settings = { brokers: ['a:1'], log: quietLog };
  const cluster = new Cluster(wires, settings, 1000);
  const client = createClient(wires, settings);
  closers.push(
    () => cluster.close(),
    () => void client.close(),
  );
  return { asked, client, cluster, coordinator: new Coordinator(cluster, 'mine', 'transactions') };
};

it('is looked for once, and asked', async () => {
  const { asked, coordinator } = brokers({});
  for (let i = 0; i < 2; i++) await coordinator.ask(request, 'ending', () => undefined);
  expect(asked).toEqual(['a FindCoordinator', 'a EndTxn', 'a EndTxn']);
  expect(coordinator.address).toBe('a:1');
});

it('is looked for again when it is elsewhere, and not when it is only busy', async () => {
  const { asked, coordinator } = brokers({ EndTxn: [CONCURRENT_TRANSACTIONS, NOT_COORDINATOR, 0] });
  await coordinator.ask(request, 'ending', () => 0, busy);
  expect(asked).toEqual(['a FindCoordinator', 'a EndTxn', 'a EndTxn', 'a FindCoordinator', 'b EndTxn']);
});

it('is looked for again when the way to it is lost', async () => {
  const { asked, coordinator } = brokers({});
  await coordinator.ask(request, 'ending', () => undefined);
  coordinator.drop();
  await coordinator.ask(request, 'ending', () => undefined);
  expect(asked.filter(one => one.endsWith('FindCoordinator'))).toHaveLength(2);
});

it('may not be there yet, which counts as a refusal', async () => {
  const { coordinator } = brokers({ FindCoordinator: [COORDINATOR_NOT_AVAILABLE, COORDINATOR_NOT_AVAILABLE, 0] });
  const refusals: number[] = [];
  await coordinator.ask(request, 'ending', refusal => refusals.push(refusal) && 0);
  expect(refusals).toEqual([1, 2]);
});

it('is asked no longer than patience lasts, nor when it is closed, nor for another reason', async () => {
  const { asked, cluster, coordinator } = brokers({ EndTxn: [NOT_COORDINATOR] });
  const ask = (patience: (refusals: number) => number | undefined) => coordinator.ask(request, 'ending', patience);
  await expect(ask(refusals => (refusals < 3 ? 0 : undefined))).rejects.toThrow(
    /a:1, ending: In words \(16, code 16\)/,
  );
  expect(asked.filter(one => one.endsWith('EndTxn'))).toHaveLength(3);
  const asking = ask(() => 3_600_000);
  cluster.close();
  await expect(asking).rejects.toThrow();

  const other = brokers({ EndTxn: [UNKNOWN_PRODUCER_ID] });
  await expect(other.coordinator.ask(request, 'ending', () => 0, busy)).rejects.toThrow(/code 59/);
});

it('of a group is asked twenty times for the rights there, as the first group of a cluster waits for it', async () => {
  const { asked, client } = brokers({
    FindCoordinator: [COORDINATOR_NOT_AVAILABLE, 0],
    DescribeGroups: [NOT_COORDINATOR],
  });
  await expect(client.describeGroup('billing')).rejects.toThrow(/looking for group billing/);
  expect(asked.filter(one => one.endsWith('FindCoordinator'))).toHaveLength(20);
});
