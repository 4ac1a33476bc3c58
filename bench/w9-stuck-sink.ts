/**
 * W9: a sink that never returns, behind a memory channel of 100 k events or a file channel of 1 M, while the source has
 * as much as one likes to take: 60 seconds, or 10 with `--quick`. Memory must be flat. Beside it a sink that takes 10 ms
 * for each batch, where deliveries keep moving; and plain RxJS, which has no way to hold its source back (it ends itself
 * at 1 GB).
 *
 * Resident memory is read from outside every second. Slope: least squares over the second half of the samples,
 * in MB per minute. A slope of a few MB either way is the garbage collector's.
 *
 * @module
 */
import { connect, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { concatMap, from, NEVER, Subject } from 'rxjs';
import type { ChildMain } from './child.ts';
import { rssOf } from './proc.ts';
import { startChild } from './processes.ts';
import { column, count, type Run, type Sample, type Workload } from './workload.ts';

const BATCH = 1000;
const makeBatch = () => Array.from({ length: BATCH }, () => ({ headers: {}, body: Buffer.alloc(180, 'x') }));
const CEILING = 1024;

/** Tells how many events have left the source, whenever it is asked. */
const answer = async (go: () => Promise<void>, tell: (message: unknown) => void, emitted: () => number) => {
  for (;;) {
    await go();
    tell(emitted());
  }
};

const forever = () => new Promise<void>(() => undefined);

const millrace = async (write: () => Promise<void>, dir?: string) => {
  const { createSink, createSource, fileChannel, memoryChannel, run } = await import('../src/index.ts');
  return run(
    createSource(emitter => ({ pull: () => emitter.emit(makeBatch()) })),
    dir === undefined
      ? memoryChannel({ capacity: 100_000, transactionCapacity: 10_000 })
      : fileChannel({ dir, capacity: 1_000_000 }),
    createSink(write),
  );
};

export const stuck: ChildMain<object> = async (_, tell, go) => {
  const flow = await millrace(forever);
  await answer(go, tell, () => flow.ledger.accepted);
};

export const stuckFile: ChildMain<{ dir: string }> = async ({ dir }, tell, go) => {
  const flow = await millrace(forever, join(dir, 'channel'));
  await answer(go, tell, () => flow.ledger.accepted);
};

export const slow: ChildMain<object> = async (_, tell, go) => {
  const flow = await millrace(() => sleep(10));
  await answer(go, tell, () => flow.ledger.accepted);
};

/** A client in the same process writes as fast as the socket takes it, which is not at all once everything is full. */
export const stuckNetcat: ChildMain<object> = async (_, tell, go) => {
  const { createSink, memoryChannel, netcatSource, run } = await import('../src/index.ts');
  let listens: (address: AddressInfo) => void;
  const listening = new Promise<AddressInfo>(resolve => (listens = resolve));
  const flow = run(
    netcatSource({ port: 0, ackEveryEvent: false, listening: address => listens(address) }),
    memoryChannel({ capacity: 100_000, transactionCapacity: 10_000 }),
    createSink(forever),
  );
  const { port } = await listening;
  const socket = connect(port, '127.0.0.1');
  const lines = Buffer.alloc(64 * 1024, `${'x'.repeat(179)}\n`);
  const write = () => {
    while (socket.write(lines));
  };
  socket.on('drain', write);
  write();
  await answer(go, tell, () => flow.ledger.accepted);
};

export const plain: ChildMain<object> = async (_, tell, go) => {
  let emitted = 0;
  const batches = new Subject<unknown[]>();
  batches
    .pipe(
      concatMap(batch => from([batch])),
      concatMap(() => NEVER),
    )
    .subscribe();
  const push = () => {
    if (process.memoryUsage.rss() / 2 ** 20 > CEILING) return;
    batches.next(makeBatch());
    emitted += BATCH;
    setImmediate(push);
  };
  push();
  await answer(go, tell, () => emitted);
};

const slopeOf = (points: readonly (readonly [number, number])[]): number => {
  const mean = (at: 0 | 1) => points.reduce((sum, point) => sum + point[at], 0) / points.length;
  const [mx, my] = [mean(0), mean(1)];
  const over = points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0);
  return over / points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
};

const measured = async ({ quick, dir }: Run, name: string): Promise<Sample> => {
  const seconds = quick ? 10 : 60;
  const running = startChild('w9-stuck-sink', name, { dir });
  try {
    running.go();
    await running.told();
    const points: [number, number][] = [];
    for (let second = 1; second <= seconds; second++) {
      await sleep(1000);
      points.push([second, rssOf(running.pid)]);
    }
    running.go();
    const emitted = await running.told<number>();
    const all = points.map(([, rss]) => rss);
    const settled = points.filter(([second]) => second > seconds / 2);
    return { max: Math.max(...all), min: Math.min(...all), slope: slopeOf(settled) * 60, emitted, seconds };
  } finally {
    await running.stop();
  }
};

const contestant = (name: string, child: string) => ({ name, run: (run: Run) => measured(run, child) });

export default {
  name: 'w9-stuck-sink',
  title: 'W9: a sink that never returns, the source at full speed',
  definition: 'Resident memory, sampled every second; slope over the second half.',
  columns: [
    column('max', 'RSS max, MB'),
    column('min', 'RSS min, MB'),
    column('slope', 'slope, MB/min', 1),
    { key: 'emitted', title: 'events taken from the source', show: count },
    column('seconds', 'seconds'),
  ],
  baselines: [],
  rounds: 1,
  contestants: [
    contestant('plain RxJS (ends itself at 1 GB)', 'plain'),
    contestant('millrace', 'stuck'),
    contestant('millrace, file channel', 'stuckFile'),
    contestant('millrace, netcat source', 'stuckNetcat'),
    contestant('millrace, sink takes 10 ms', 'slow'),
  ],
} satisfies Workload;
