import { createReadStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { retry } from 'rxjs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { run } from '../../src/core/flow.ts';
import { fromReadable } from '../../src/sources/from-readable.ts';
import { recordingSink } from '../../src/testing/index.ts';
import { numbers } from '../core/fakes.ts';

/** Objects 1, 2, 3 …; counts how many the stream was asked for. */
const counting = (total = Infinity, highWaterMark = 4) => {
  const seen = { made: 0 };
  const stream = new Readable({
    objectMode: true,
    highWaterMark,
    read() {
      this.push(seen.made < total ? ++seen.made : null);
    },
  });
  return { seen, stream };
};

/** Lets a stream do whatever it would do by itself. */
const quiet = async () => {
  for (let i = 0; i < 50; i++) await turn();
};

describe('fromReadable', () => {
  test('delivers the objects of a stream in order and completes', async () => {
    const { stream } = counting(100);
    const sink = recordingSink<number>();
    await run(fromReadable<number>(stream, { batchSize: 7 }), sink).done;
    expect(sink.acked).toEqual(numbers(1, 100));
    expect(Math.max(...sink.received.map(({ events }) => events.length))).toBeLessThanOrEqual(7);
  });

  test('delivers the bytes of a file, and destroys nothing that ended by itself', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'from-readable-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const path = join(folder, 'data');
    const bytes = Buffer.from(numbers(1, 300_000).join('\n'));
    await writeFile(path, bytes);
    await run(fromReadable(createReadStream(path)), recordingSink<Buffer>()).done;
    const chunks = recordingSink<Buffer>(() => ({ outcome: 'ack', after: 1 }));
    await run(
      fromReadable(() => createReadStream(path), { maxInFlight: { deliveries: 2 } }),
      chunks,
    ).done;
    expect(Buffer.concat(chunks.acked).equals(bytes)).toBe(true);
  });

  test('reads only with credit: without, the stream fills up to its high-water mark', async () => {
    const { stream, seen } = counting(Infinity, 4);
    const sink = recordingSink<number>(() => 'hold');
    const flow = run(fromReadable<number>(stream, { batchSize: 1, maxInFlight: { deliveries: 3 } }), sink);
    await quiet();
    expect(sink.received).toHaveLength(3);
    // Three are in flight, at most four are buffered in the stream.
    expect(seen.made).toBeLessThanOrEqual(7);
    sink.received[0]!.settle('ack');
    await quiet();
    expect(sink.received).toHaveLength(4);
    expect(seen.made).toBeLessThanOrEqual(8);
    flow.abort();
    await quiet();
    expect(stream.destroyed).toBe(true);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 4, dropped: 3, held: 0, delivered: 1 });
  });

  test('chunks count against limits in bytes', async () => {
    const stream = new PassThrough();
    const sink = recordingSink<Buffer>(() => 'hold');
    const flow = run(fromReadable(stream, { maxInFlight: { bytes: 1000 } }), sink);
    for (let i = 0; i < 5; i++) {
      stream.write(Buffer.alloc(600));
      await quiet();
    }
    expect(sink.received).toHaveLength(1);
    flow.abort();
  });

  test('a stop destroys the stream and delivers what was read', async () => {
    const { stream } = counting();
    const sink = recordingSink<number>(() => ({ outcome: 'ack', after: 1 }));
    const flow = run(fromReadable<number>(stream, { batchSize: 1 }), sink);
    await quiet();
    await flow.stop();
    expect(stream.destroyed).toBe(true);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: sink.acked.length, delivered: sink.acked.length });
  });

  test('an error of the stream comes after everything that was read', async () => {
    const stream = new PassThrough({ objectMode: true });
    const sink = recordingSink<number>(['hold']);
    const flow = run(fromReadable<number>(stream), sink);
    stream.write(1);
    await quiet();
    stream.destroy(new Error('reset'));
    await quiet();
    expect(sink.ended).toBeUndefined();
    sink.received[0]!.settle('ack');
    await expect(flow.done).rejects.toThrow('reset');
    expect(sink.acked).toEqual([1]);
  });

  test('a stream that closes before its end is an error', async () => {
    const stream = new PassThrough();
    const flow = run(fromReadable(stream), recordingSink<Buffer>());
    await quiet();
    stream.destroy();
    await expect(flow.done).rejects.toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' });
  });

  test('an error after the end of the session is nobody’s', async () => {
    const stream = new PassThrough({
      destroy: (_, callback) => void setImmediate(() => callback(new Error('too late'))),
    });
    const flow = run(fromReadable(stream), recordingSink<Buffer>());
    await quiet();
    await flow.stop();
    await quiet();
    expect(stream.destroyed).toBe(true);
  });

  test('a function makes a stream for each session', async () => {
    let sessions = 0;
    const make = () =>
      Readable.from(
        (async function* () {
          const session = ++sessions;
          yield session;
          await turn();
          if (session < 3) throw new Error('lost');
        })(),
      );
    const sink = recordingSink<number>();
    await run(fromReadable<number>(make).pipe(retry(2)), sink).done;
    expect(sink.acked).toEqual([1, 2, 3]);
  });
});
