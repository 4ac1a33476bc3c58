import { describe, expect, it } from 'vitest';
import { event, headers, memoryChannel, type FlumeEvent } from '../../../src/index.ts';
import type { Channel } from '../../../src/core/channel.ts';
import { Batch } from '../../../src/core/event.ts';
import type { Delivery } from '../../../src/core/delivery.ts';
import type { MaxInFlight } from '../../../src/core/outlet.ts';
import { inScope, Scope } from '../../../src/core/scope.ts';
import { createSource } from '../../../src/core/source.ts';
import { FakeClock, seededRandom } from '../../../src/testing/index.ts';

// What Flume's own tests pin down about its memory channel. The laws are in test/laws/channels.test.ts.

/** A channel with a hand on either side: puts that are answered or not, takes that are settled by hand. */
const world = async (options: Parameters<typeof memoryChannel>[0]) => {
  const clock = new FakeClock();
  const scope = new Scope({ clock, random: seededRandom(1) });
  const channel: Channel = inScope(scope, () => memoryChannel.create(options));
  let emit!: (events: readonly FlumeEvent[] | Batch) => void;
  const answers: string[] = [];
  const source = createSource(
    emitter => {
      emit = events => emitter.emit(events);
      return { settled: (_, what) => void answers.push(what) };
    },
    { onFailure: 'report', maxInFlight: { deliveries: 100 } },
  );
  inScope(scope, () => source.subscribe(channel.input()));
  await clock.flush();
  const taken: Delivery[] = [];
  const put = async (...events: FlumeEvent[]) => {
    const before = answers.length;
    emit(events);
    await clock.flush();
    return answers.slice(before).join();
  };
  const take = async (batchSize: number, maxInFlight: MaxInFlight = {}) => {
    inScope(scope, () => channel.output({ batchSize, maxInFlight }).subscribe(delivery => void taken.push(delivery)));
    await clock.flush();
    return taken;
  };
  return { clock, channel, put, take, answers, emit: (events: readonly FlumeEvent[] | Batch) => emit(events) };
};

const sized = (bytes: number, head = {}) => event(Buffer.alloc(bytes, 'x'), headers(head));
const text = (delivery: Delivery) => delivery.events.map(({ body }) => body.toString());

describe('memory channel', () => {
  it('takes what fits and refuses the rest when keepAlive is over', async () => {
    const { put, clock, answers, channel } = await world({ capacity: 5, transactionCapacity: 5, keepAlive: 3 });
    expect(await put(event('1'), event('2'), event('3'))).toBe('acked');
    expect(await put(event('4'), event('5'), event('6'))).toBe('');
    await clock.advance(2999);
    expect(answers).toEqual(['acked']);
    await clock.advance(1);
    expect(answers).toEqual(['acked', 'nacked']);
    expect(channel.depth.events).toBe(3);
  });

  it('has room again when takes are acked, not when they are taken', async () => {
    const { put, take, answers, clock, channel } = await world({ capacity: 3, transactionCapacity: 3 });
    await put(event('1'), event('2'), event('3'));
    const taken = await take(2);
    expect(taken.map(text)).toEqual([['1', '2'], ['3']]);
    expect(await put(event('4'), event('5'))).toBe('');
    expect(channel.depth.events).toBe(3);
    taken[0]!.ack();
    await clock.flush();
    expect(answers).toEqual(['acked', 'acked']);
    expect(channel.depth.events).toBe(3);
  });

  it('counts bytes: 2000 less 20 % hold three bodies of 405, and not a fourth', async () => {
    const { put } = await world({ capacity: 100, byteCapacity: 2000, keepAlive: 0 });
    expect(await put(sized(405), sized(405), sized(405))).toBe('acked');
    expect(await put(sized(405))).toMatch(/^(nacked)?$/);
  });

  it('counts headers, too', async () => {
    const { put, channel } = await world({ capacity: 100, byteCapacity: 1000, byteCapacityBufferPercentage: 0 });
    await put(sized(100, { key: 'value' }));
    expect(channel.depth).toEqual({ events: 1, bytes: 108 });
  });

  it('rejects an event that can never fit, alone', async () => {
    const { put, channel, answers } = await world({
      capacity: 100,
      byteCapacity: 1000,
      byteCapacityBufferPercentage: 0,
    });
    await put(sized(10), sized(2000), sized(10));
    expect(answers).toEqual(['rejected']);
    expect(channel.depth).toEqual({ events: 2, bytes: 20 });
  });

  it('puts what is larger than a transaction in parts, in order', async () => {
    const { put, take } = await world({ capacity: 10, transactionCapacity: 2 });
    expect(await put(...['1', '2', '3', '4', '5'].map(body => event(body)))).toBe('acked');
    expect((await take(2)).map(text)).toEqual([['1', '2'], ['3', '4'], ['5']]);
  });

  it('joins small puts that wait, up to a batch', async () => {
    const { put, take } = await world({ capacity: 10, transactionCapacity: 10 });
    for (const body of ['1', '2', '3', '4', '5']) await put(event(body));
    expect((await take(3)).map(text)).toEqual([
      ['1', '2', '3'],
      ['4', '5'],
    ]);
  });

  it('does not cut a batch to fill what is left of the credit: rests would be cut smaller and smaller', async () => {
    const { put, take, clock } = await world({ capacity: 1000, transactionCapacity: 9 });
    for (let i = 0; i < 10; i++) await put(...Array.from({ length: 9 }, (_, n) => event(`${i}.${n}`)));
    const taken = await take(9, { events: 25 });
    expect(taken.map(({ length }) => length)).toEqual([9, 9]);
    for (const delivery of taken) {
      delivery.ack();
      await clock.flush();
    }
    expect(taken.map(({ length }) => length)).toEqual(Array(10).fill(9));
  });

  it('cuts what is larger than all of the credit', async () => {
    const { put, take } = await world({ capacity: 1000, transactionCapacity: 9 });
    await put(...Array.from({ length: 9 }, (_, n) => event(`${n}`)));
    const taken = await take(9, { events: 4 });
    expect(taken.map(({ length }) => length)).toEqual([4]);
    taken[0]!.ack();
  });

  it('accepts empty bodies, and blocks without cutting them up', async () => {
    const { put, emit, take, clock } = await world({ capacity: 10, transactionCapacity: 10 });
    await put(event(''));
    const block = { bytes: Buffer.from('a\nbb\n\n'), ends: Uint32Array.of(1, 4, 5), headers: headers({ h: '1' }) };
    emit(Batch.ofBlock(block));
    await clock.flush();
    const taken = await take(10);
    expect(taken.map(({ length }) => length)).toEqual([1, 3]);
    expect(taken[1]!.block).toBe(block);
    expect(text(taken[1]!)).toEqual(['a', 'bb', '']);
  });

  it('joins blocks that lie side by side in one memory, without copying, and no others', async () => {
    const { emit, clock, take } = await world({ capacity: 100, transactionCapacity: 10 });
    const ends = Uint32Array.of(1, 3, 5);
    const [first, rest] = Batch.ofBlock({ bytes: Buffer.from('a\nb\nc\n'), ends, headers: headers({}) }).split(1);
    const other = Batch.ofBlock({ bytes: Buffer.from('d\n'), ends: Uint32Array.of(1), headers: headers({}) });
    for (const batch of [first, rest, other]) emit(batch);
    await clock.flush();
    const [joined, alone] = await take(10);
    expect(joined?.block?.bytes.buffer).toBe(first.block?.bytes.buffer);
    expect(joined?.block?.ends).toEqual(ends);
    expect(text(joined!)).toEqual(['a', 'b', 'c']);
    expect(text(alone!)).toEqual(['d']);
  });

  it('refuses a transaction larger than the channel', () => {
    expect(() => memoryChannel.create({ capacity: 5, transactionCapacity: 6 })).toThrow('must not exceed capacity 5');
    expect(() => memoryChannel({ capacity: 0 })).toThrow('capacity');
  });
});
