import { afterEach, expect, it } from 'vitest';
import { MillraceError } from '../../../../src/core/errors.ts';
import { quietLog } from '../../../../src/core/scope.ts';
import { Cluster } from '../../../../src/protocols/kafka/brokers/cluster.ts';
import { heartbeat } from '../../../../src/protocols/kafka/brokers/requests.ts';
import type { Answered, Wire, Wires } from '../../../../src/protocols/kafka/brokers/wire.ts';

const beat = heartbeat({ groupId: 'group', generation: 1, memberId: 'member' });
const forEver = new Promise<never>(() => undefined);
const failing = (code: 'MR_KAFKA' | 'MR_KAFKA_UNREACHABLE' | 'MR_KAFKA_LOGIN') => () =>
  Promise.reject(new MillraceError(code, 'as it is'));
const fine = () => Promise.resolve();

/** Does what it is told to; each that was opened is kept. */
class FakeWire implements Wire {
  usable = false;
  asked = 0;
  readonly host: string;
  readonly #behaves: Behaviour;
  #fail: (why: Error) => void = () => undefined;

  constructor(host: string, behaves: Behaviour) {
    this.host = host;
    this.#behaves = behaves;
  }

  async connect(): Promise<void> {
    await this.#behaves.connect();
    this.usable = true;
  }

  ask<Answer extends Answered>(): Promise<Answer> {
    this.asked++;
    const lost = new Promise<never>((_resolve, reject) => (this.#fail = reject));
    return Promise.race([this.#behaves.ask?.() ?? forEver, lost]) as Promise<Answer>;
  }

  cut(why: Error): void {
    this.usable = false;
    this.#fail(why);
  }
}

interface Behaviour {
  connect(): Promise<void>;
  ask?(): Promise<unknown>;
}

const clusters: Cluster[] = [];
afterEach(() => {
  for (const cluster of clusters.splice(0)) cluster.close();
});

const setUp = (behaviours: Record<string, Behaviour>) => {
  const wires: FakeWire[] = [];
  const all: Wires = {
    wordsFor: () => ({ type: 'NAME', message: 'In words' }),
    open: ({ host }) => {
      const wire = new FakeWire(host, behaviours[host] as Behaviour);
      wires.push(wire);
      return wire;
    },
  };
  const brokers = Object.keys(behaviours).map(host => `${host}:9092`);
  const cluster = new Cluster(all, { brokers, connectionTimeout: 10, log: quietLog }, 1000);
  clusters.push(cluster);
  return { cluster, wires, opened: () => wires.map(({ host }) => host) };
};

it('asks whoever answers, and is connected once', async () => {
  const { cluster, opened } = setUp({ a: { connect: failing('MR_KAFKA_UNREACHABLE') }, b: { connect: fine } });
  const [one, other] = await Promise.all([cluster.any(), cluster.any()]);
  expect([one.address, other]).toEqual(['b:9092', one]);
  // Who did not answer before is the last to be asked.
  await cluster.any();
  expect(opened()).toEqual(['a', 'b']);
});

it('gives up who says nothing, and says that nobody answers', async () => {
  const { cluster, wires } = setUp({ a: { connect: () => forEver }, b: { connect: failing('MR_KAFKA_UNREACHABLE') } });
  await expect(cluster.any()).rejects.toMatchObject({
    code: 'MR_KAFKA_UNREACHABLE',
    message: expect.stringMatching(/none of a:9092, b:9092 answers.*no answer within 20 ms/) as string,
  });
  expect(wires.map(({ usable }) => usable)).toEqual([false, false]);
});

it('tells of a login that is refused, and not of who is not there', async () => {
  const { cluster } = setUp({
    a: { connect: failing('MR_KAFKA_UNREACHABLE') },
    b: { connect: failing('MR_KAFKA_LOGIN') },
  });
  await expect(cluster.any()).rejects.toMatchObject({ code: 'MR_KAFKA_LOGIN' });
});

it('drops a connection on which there is no answer, asks nothing on it any more, and makes another', async () => {
  const { cluster, wires } = setUp({ a: { connect: fine, ask: failing('MR_KAFKA_UNREACHABLE') } });
  const node = await cluster.any();
  await expect(node.ask(beat)).rejects.toMatchObject({ code: 'MR_KAFKA_UNREACHABLE' });
  expect(node.usable).toBe(false);
  await expect(node.ask(beat)).rejects.toMatchObject({ code: 'MR_KAFKA_UNREACHABLE' });
  expect(await cluster.any()).not.toBe(node);
  expect(wires.map(({ asked }) => asked)).toEqual([1, 0]);
});

it('lets go of what is left of a connection that was lost', async () => {
  const { cluster, wires } = setUp({ a: { connect: fine } });
  const asking = (await cluster.any()).ask(beat);
  (wires[0] as FakeWire).usable = false;
  await cluster.any();
  await expect(asking).rejects.toThrow('the connection was dropped');
});

it('keeps a connection whose answer was of no use', async () => {
  const { cluster } = setUp({ a: { connect: fine, ask: failing('MR_KAFKA') } });
  const node = await cluster.any();
  await expect(node.ask(beat)).rejects.toMatchObject({ code: 'MR_KAFKA' });
  expect(await cluster.any()).toBe(node);
});

it('fails what is on its way when it is closed, and connects no more', async () => {
  const { cluster, opened } = setUp({ a: { connect: fine } });
  const asking = (await cluster.any()).ask(beat);
  cluster.close();
  await expect(asking).rejects.toThrow('the connection was dropped');
  await expect(cluster.any()).rejects.toThrow('the client was closed');
  expect(opened()).toEqual(['a']);
});
