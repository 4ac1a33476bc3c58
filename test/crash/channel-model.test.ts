/**
 * The whole file channel against a model: puts, acks, nacks, full and failing disks, stops, kills and power cuts in any order.
 * Everything that it holds is out, in order, at any quiet moment. `CRASH_SEED=<seed of a failure>` plays all of that run again,
 * `CRASH_RUNS=5000` plays many.
 */
import { reseed } from './determinism.ts';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Channel } from '../../src/core/channel.ts';
import type { Delivery } from '../../src/core/delivery.ts';
import { Batch, noHeaders } from '../../src/core/event.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { createSource, event, fileChannel } from '../../src/index.ts';
import { FakeClock, recordingLog, seededRandom } from '../../src/testing/index.ts';
import { CrashDisk } from './crash-disk.ts';

const capacity = 12;
const mostEvents = 5;

interface Put {
  readonly numbers: readonly number[];
  answer: 'acked' | 'failed' | undefined;
}

/** What is known to who puts and takes. */
class Model {
  /** In the channel, in order. */
  held: number[] = [];
  /** Asked for and not answered. */
  waiting: Put[] = [];
  /** Done with, and not confirmed, since it was opened: these may be back. */
  done: number[] = [];
  refused: number[] = [];
  next = 0;
  /** Nothing has failed since it was opened. */
  calm = true;

  answer({ numbers, answer }: Put): void {
    if (answer === 'failed') this.refused.push(...numbers);
    else this.held.push(...numbers);
  }
  settle(numbers: readonly number[]): void {
    this.held = this.held.filter(number => !numbers.includes(number));
    this.done.push(...numbers);
  }
  opened(found: readonly number[]): void {
    [this.held, this.waiting, this.done, this.refused, this.calm] = [[...found], [], [], [], true];
  }
}

/** What happened in all runs: without it they prove little. */
const seen = {
  'a put that waits': 0,
  'a put that fails': 0,
  'done with, and there again': 0,
  'a part of a delivery': 0,
  'held over a crash': 0,
};

const numbersOf = ({ events }: Delivery): number[] => events.map(({ body }) => parseInt(body.toString(), 10));

/** A channel with a hand on either side. */
class Real {
  #disk: CrashDisk;
  #clock!: FakeClock;
  #channel!: Channel;
  #emit!: (put: Put) => void;
  #taken: Delivery[] = [];
  readonly #log = recordingLog();
  #memory = Buffer.alloc(512 * 1024);

  constructor(seed: number) {
    this.#disk = new CrashDisk(seededRandom(seed));
  }

  /** Deliveries that are out. */
  get live(): readonly Delivery[] {
    return this.#taken.filter(({ live }) => live);
  }

  async open(): Promise<void> {
    this.#clock = new FakeClock();
    const taken: Delivery[] = (this.#taken = []);
    const scope = new Scope({ clock: this.#clock, log: this.#log, disk: this.#disk, random: seededRandom(1) });
    await inScope(scope, async () => {
      const redelivery = { initial: 1, max: 1 };
      this.#channel = fileChannel.create({
        ...{ dir: '/c', capacity, transactionCapacity: mostEvents, maxFileSize: 4096, minimumRequiredSpace: 0 },
        cacheBytes: 2000,
      });
      createSource<ReturnType<typeof event>, Put>(
        emitter => {
          this.#emit = put => {
            const texts = put.numbers.map(number => `${number} `.padEnd(100 + ((number * 37) % 400), 'x'));
            emitter.emit(put.numbers.length % 2 === 0 ? texts.map(text => event(text)) : this.#block(texts), put);
          };
          return { settled: (put, what) => void (put.answer = what === 'acked' ? 'acked' : 'failed') };
        },
        { onFailure: 'report', maxInFlight: { deliveries: 1000 } },
      ).subscribe(this.#channel.input());
      this.#channel.output({ batchSize: mostEvents, redelivery }).subscribe(delivery => void taken.push(delivery));
      await this.#quiet();
    });
  }

  /** Behind the one before in memory, as if they had been read at once. */
  #block(texts: readonly string[]): Batch {
    const text = texts.map(line => `${line}\n`).join('');
    let end = -1;
    const ends = Uint32Array.from(texts, line => (end += line.length + 1));
    const bytes = this.#memory.subarray(0, this.#memory.write(text));
    this.#memory = this.#memory.subarray(bytes.length);
    return Batch.ofBlock({ bytes, ends, headers: noHeaders });
  }

  async #quiet(): Promise<void> {
    for (let i = 0; i < 3; i++) {
      await this.#clock.flush();
      await this.#clock.advance(2);
    }
  }

  put(put: Put): void {
    this.#emit(put);
  }

  trouble(kind: 'full' | 'syncs'): void {
    if (kind === 'full') this.#disk.capacity = this.#disk.used;
    else this.#disk.fault = ({ name }) => (name === 'sync' ? 'EIO' : undefined);
  }

  heal(): void {
    this.#disk.capacity = Infinity;
    this.#disk.fault = undefined;
  }

  async close(): Promise<void> {
    const closed = this.#channel.close();
    await this.#quiet();
    await closed;
  }

  crash(cut: boolean, seed: number): void {
    const random = seededRandom(seed);
    this.#disk = cut ? this.#disk.cut(random) : this.#disk.kill(random);
  }

  /** What is out, when nothing moves any more. */
  async out(): Promise<number[]> {
    await this.#quiet();
    return this.live.flatMap(numbersOf);
  }

  /** As the model says? */
  async check(model: Model): Promise<void> {
    const out = await this.out();
    while (model.waiting[0]?.answer !== undefined) {
      const put = model.waiting.shift() as Put;
      if (put.answer === 'acked') expect(model.held.length + put.numbers.length, 'C1').toBeLessThanOrEqual(capacity);
      else {
        expect(model.calm, 'a put failed, and nothing was wrong').toBe(false);
        seen['a put that fails']++;
      }
      model.answer(put);
    }
    const [first] = model.waiting;
    if (first !== undefined) {
      seen['a put that waits']++;
      expect(model.held.length + first.numbers.length, 'a put waits, and there is room').toBeGreaterThan(capacity);
    }
    expect(out).toEqual(model.held);
    expect(this.#channel.depth.events).toBe(model.held.length);
    expect(this.#channel.counters).toMatchObject({ LostEventCount: 0 });
  }
}

type Command = fc.AsyncCommand<Model, Real>;

const command = (name: string, run: (model: Model, real: Real) => void | Promise<void>): Command => ({
  check: () => true,
  run: async (model, real) => {
    await run(model, real);
    await real.check(model);
  },
  toString: () => name,
});

/** At once: what waits together may leave together. */
const put = (counts: readonly number[]) =>
  command(`put ${counts.join(' ')}`, (model, real) => {
    for (const count of counts) {
      const own: Put = { numbers: Array.from({ length: count }, () => model.next++), answer: undefined };
      model.waiting.push(own);
      real.put(own);
    }
  });

const settle = (how: 'ack' | 'nack', at: number, part: number) =>
  command(`${how} ${at} ${part}`, (model, real) => {
    const delivery = real.live[at % real.live.length];
    if (delivery === undefined) return;
    const numbers = numbersOf(delivery);
    const failed = how === 'ack' ? [] : delivery.events.slice(part % numbers.length);
    model.settle(numbers.slice(0, numbers.length - failed.length));
    if (failed.length > 0 && failed.length < numbers.length) seen['a part of a delivery']++;
    if (how === 'ack') delivery.ack();
    else delivery.nack(new Error('not now'), failed);
  });

const trouble = (kind: 'full' | 'syncs') =>
  command(kind, (model, real) => {
    model.calm = false;
    real.trouble(kind);
  });

const heal = command('heal', (_, real) => real.heal());

/** Opens it again, and looks what is there: all that was held, in order, and of what is doubtful some. */
const opened = async (model: Model, real: Real, doubtful: readonly number[]) => {
  await real.open();
  const found = await real.out();
  const more = found.filter(number => !model.held.includes(number));
  expect(
    more.filter(number => !doubtful.includes(number)),
    'out of nowhere',
  ).toEqual([]);
  expect(
    found.filter(number => model.held.includes(number)),
    'lost, or out of order',
  ).toEqual(model.held);
  if (more.some(number => model.done.includes(number))) seen['done with, and there again']++;
  model.opened(found);
};

const reopen = command('reopen', async (model, real) => {
  real.heal();
  await real.check(model);
  await real.close();
  // A put whose sync has failed, and then that of the cut that took it back: nobody knows, and it was not confirmed.
  await opened(model, real, model.refused);
});

const crash = (cut: boolean, seed: number) =>
  command(`${cut ? 'power cut' : 'kill'} ${seed}`, async (model, real) => {
    real.heal();
    real.crash(cut, seed);
    if (model.held.length > 0) seen['held over a crash']++;
    // Acks are written at once, but for those of a disk that fails.
    await opened(model, real, cut || !model.calm ? [...model.done, ...model.refused] : []);
  });

const commands = fc.commands(
  [
    fc.array(fc.constantFrom(1, 1, 2, mostEvents), { minLength: 1, maxLength: 4 }).map(put),
    fc.array(fc.constantFrom(1, 1, 2, mostEvents), { minLength: 1, maxLength: 4 }).map(put),
    fc
      .tuple(fc.constantFrom('ack', 'ack', 'nack'), fc.nat(9), fc.nat(3))
      .map(words => settle(...(words as ['ack', number, number]))),
    fc
      .tuple(fc.constantFrom('ack', 'ack', 'nack'), fc.nat(9), fc.nat(3))
      .map(words => settle(...(words as ['ack', number, number]))),
    fc.constantFrom<'full' | 'syncs'>('full', 'syncs').map(trouble),
    fc.constant(heal),
    fc.constant(reopen),
    fc.tuple(fc.boolean(), fc.nat(1e6)).map(words => crash(...words)),
  ],
  { maxCommands: 40, size: 'max' },
);

test(
  'a file channel is what a list is, whatever happens to its disk and its process',
  { timeout: 600_000 },
  async () => {
    await fc.assert(
      fc.asyncProperty(commands, fc.nat(1e6), async (some, seed) => {
        reseed(seed);
        const real = new Real(seed);
        await real.open();
        await fc.asyncModelRun(() => ({ model: new Model(), real }), some);
      }),
      {
        numRuns: Number(process.env['CRASH_RUNS'] ?? 400),
        ...(process.env['CRASH_SEED'] !== undefined && { seed: Number(process.env['CRASH_SEED']) }),
      },
    );
    if (process.env['CRASH_SHOW'] !== undefined) console.log(seen);
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(0);
  },
);
