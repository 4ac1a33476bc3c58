/**
 * Kernel: batches of 1, 10, 100 and 1000 events of 180 bytes, made beforehand → map (a header) and filter (drops one event in ten) →
 * memory channel → sink, in one process and without I/O. Beside it the same work in plain RxJS, which has no channel,
 * no settlement and no bound: what the guarantees cost.
 *
 * Rate: deliveries that leave the source per second, from subscribing until the sink has everything; the count is
 * checked. A tenth of the work is done beforehand and not measured. Each is measured with a sink that returns at once
 * and with one that returns a promise. Plain RxJS pulls with `repeat` in the second case: pushed batches would pile up.
 *
 * @module
 */
import { concatMap, defer, EMPTY, filter, from, lastValueFrom, map, range, repeat, toArray } from 'rxjs';
import type { ChildMain } from './child.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { startChild } from './processes.ts';
import { count, cpuSeconds, peakRss, type Sample, type Workload } from './workload.ts';

interface Event {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const deliveriesFor: Readonly<Record<string, number>> = { 1: 1_000_000, 10: 500_000, 100: 100_000, 1000: 10_000 };

interface Size {
  /** Events in a batch. */
  readonly batch: number;
  readonly deliveries: number;
}

/** Ten batches in turn; one event in ten is marked to be dropped. */
const makeBatches = (size: number): (readonly Event[])[] =>
  Array.from({ length: 10 }, (_, b) =>
    Array.from({ length: size }, (_, i) => ({
      headers: {},
      body: Buffer.alloc(180, (b * size + i) % 10 === 0 ? 'x' : 'o'),
    })),
  );
const headers = Object.freeze({ host: 'web-1' });
const tag = map(({ body }: Event): Event => ({ headers, body }));
const keep = filter(({ body }: Event) => body[0] !== 0x78);

/** Does a tenth of the work, then all of it, and tells how long that took. */
const timed = async (
  { batch, deliveries }: Size,
  tell: (message: unknown) => void,
  work: (batches: (readonly Event[])[], deliveries: number) => Promise<number>,
): Promise<void> => {
  const batches = makeBatches(batch);
  await work(batches, deliveries / 10);
  tell('began');
  const began = performance.now();
  const delivered = await work(batches, deliveries);
  tell((performance.now() - began) / 1000);
  if (delivered !== deliveries * batch * 0.9) throw new Error(`the sink got ${delivered} events`);
};

export const plain: ChildMain<Size> = (size, tell) =>
  timed(size, tell, async (batches, deliveries) => {
    let delivered = 0;
    const write = (events: readonly Event[]) => {
      delivered += events.length;
      return EMPTY;
    };
    const flow = range(0, deliveries).pipe(
      concatMap(i => from(batches[i % 10]!).pipe(tag, keep, toArray())),
      concatMap(write),
    );
    await lastValueFrom(flow, { defaultValue: undefined });
    return delivered;
  });

export const plainAsync: ChildMain<Size> = (size, tell) =>
  timed(size, tell, async (batches, deliveries) => {
    let delivered = 0;
    let next = 0;
    const write = async (events: readonly Event[]) => {
      delivered += events.length;
    };
    const flow = defer(() => from(batches[next++ % 10]!).pipe(tag, keep, toArray(), concatMap(write))).pipe(
      repeat(deliveries),
    );
    await lastValueFrom(flow);
    return delivered;
  });

const millrace = async (size: Size, tell: (message: unknown) => void, asyncSink: boolean): Promise<void> => {
  const { createSink, createSource, intercept, memoryChannel, run } = await import('../src/index.ts');
  await timed(size, tell, async (batches, deliveries) => {
    let delivered = 0;
    const write = (events: readonly Event[]) => void (delivered += events.length);
    const source = createSource(emitter => {
      let left = deliveries;
      return {
        pull: () => {
          emitter.emit(batches[left % 10]!);
          if (--left === 0) emitter.complete();
        },
      };
    });
    const channel = memoryChannel({ capacity: 100_000, transactionCapacity: 10_000 });
    const sink = createSink(asyncSink ? async events => write(events) : write);
    await run(source, intercept(tag, keep), channel, sink).done;
    return delivered;
  });
};
export const ours: ChildMain<Size> = (size, tell) => millrace(size, tell, false);
export const oursAsync: ChildMain<Size> = (size, tell) => millrace(size, tell, true);

const measured = async (name: string, batch: number): Promise<Sample> => {
  const deliveries = deliveriesFor[batch]!;
  const running = startChild('kernel', name, { batch, deliveries });
  try {
    await running.told();
    const cpuBefore = cpuOf(running.pid);
    const seconds = await running.told<number>();
    const rate = deliveries / seconds;
    return { rate, events: rate * batch, cpu: cpuOf(running.pid) - cpuBefore, rss: peakRssOf(running.pid) };
  } finally {
    await running.stop();
  }
};

const contestant = (name: string, child: string) => ({
  name,
  run: ({ case: batch }: { readonly case: string }) => measured(child, Number(batch)),
});

export default {
  name: 'kernel',
  title: 'Kernel: source → intercept(map, filter) → memory channel → sink, by batch size',
  definition:
    'Batches that leave the source per second, until the sink has everything. Plain RxJS has no channel and no settlement.',
  columns: [
    { key: 'rate', title: 'deliveries/s', show: count },
    { key: 'events', title: 'events/s', show: count },
    peakRss,
    cpuSeconds,
  ],
  cases: Object.keys(deliveriesFor),
  baselines: ['plain RxJS', 'plain RxJS, async sink'],
  contestants: [
    contestant('plain RxJS', 'plain'),
    contestant('millrace', 'ours'),
    contestant('plain RxJS, async sink', 'plainAsync'),
    contestant('millrace, async sink', 'oursAsync'),
  ],
} satisfies Workload;
