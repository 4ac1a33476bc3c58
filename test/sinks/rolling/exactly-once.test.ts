import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Batch, event, noHeaders, type LogLife } from '../../../src/core/event.ts';
import { inScope, Scope } from '../../../src/core/scope.ts';
import { createSource, type Emitter, type Settled } from '../../../src/core/source.ts';
import { fileChannel, fileRollSink, run, seqSource, type Flow, type FlumeEvent } from '../../../src/index.ts';
import { recordingLog } from '../../../src/testing/index.ts';

// Crashes are in test/crash/exactly-once.test.ts and test/crash/kill.test.ts.

let root: string;
const flows: Flow[] = [];
beforeEach(() => (root = fs.mkdtempSync(join(tmpdir(), 'millrace-once-'))));
afterEach(async () => {
  for (const flow of flows.splice(0)) await flow.stop();
  fs.rmSync(root, { recursive: true });
});

type Options = Partial<Parameters<typeof fileRollSink>[0]>;
type Tell = (what: Settled) => void;

/** A sink that is given batches by hand. */
const opened = async (directory: string, options: Options = {}) => {
  fs.mkdirSync(directory, { recursive: true });
  const log = recordingLog();
  let emitter: Emitter<FlumeEvent, Tell> | undefined;
  const source = createSource<FlumeEvent, Tell>(lent => {
    emitter = lent;
    return { settled: (tell, what) => tell(what) };
  });
  const sink = fileRollSink({ directory, exactlyOnce: true, retry: { initial: 1, max: 5 }, ...options });
  const flow = inScope(new Scope({ log }), () => run(source, sink));
  flows.push(flow);
  while (emitter === undefined) await new Promise(setImmediate);
  const emit = emitter;
  return {
    sink,
    flow,
    put: (batch: Batch) => new Promise<Settled>(tell => emit.emit(batch, tell)),
    logged: async (pattern: RegExp) => {
      while (!log.entries.some(({ message }) => pattern.test(message))) await new Promise(setImmediate);
      return log.entries.find(({ message }) => pattern.test(message))!.message;
    },
    messages: () => log.entries.map(({ message }) => message),
    known: () => flow.metrics.snapshot()['SINK.file_roll']!['DuplicateCount'],
  };
};

const log: LogLife = { id: 'one', life: 'first', end: 0 };
/** Events whose bodies are their numbers. */
const numbered = (first: number, count: number, from: LogLife = log): Batch =>
  Batch.of(Array.from({ length: count }, (_, i) => event(String(first + i)))).placed([{ log: from, first, count }]);

const lines = (directory: string): string[] =>
  fs
    .readdirSync(directory)
    .filter(name => !name.startsWith('.'))
    .sort()
    .flatMap(name => fs.readFileSync(join(directory, name), 'utf8').split('\n').slice(0, -1));
const numbers = (first: number, count: number) => Array.from({ length: count }, (_, i) => String(first + i));

/** What a kill leaves at this moment. */
const killed = (directory: string): string => {
  const image = fs.mkdtempSync(join(root, 'image-'));
  fs.cpSync(directory, image, { recursive: true, filter: path => !path.endsWith('LOCK') });
  return image;
};
const growing = (directory: string): string =>
  join(directory, fs.readdirSync(directory).filter(name => !name.startsWith('.'))[0]!);

describe('file_roll with exactlyOnce', () => {
  it('knows what comes again, all of a batch or some of it, and begins a new file', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 10));
    const image = killed(join(root, 'out'));
    const { put, known } = await opened(image);
    expect(await put(numbered(2, 4))).toBe('acked');
    expect(await put(numbered(8, 4))).toBe('acked');
    expect(lines(image)).toEqual(numbers(0, 12));
    expect(known()).toBe(6);
    expect(fs.readdirSync(image).filter(name => !name.startsWith('.'))).toHaveLength(2);
  });

  it('cuts blocks as well, also several at a time', async () => {
    const { put } = await opened(join(root, 'out'));
    await put(numbered(3, 2));
    const block = (first: number, bodies: string) =>
      Batch.ofBlock({
        bytes: Buffer.from(bodies),
        ends: Uint32Array.from(Array.from(bodies.matchAll(/\n/g), ({ index }) => index)),
        headers: noHeaders,
      }).placed([{ log, first, count: bodies.split('\n').length - 1 }]);
    await put(Batch.concat([block(0, '0\n1\n2\n3\n'), block(4, '4\n5\n')]));
    expect(lines(join(root, 'out'))).toEqual(['3', '4', '0', '1', '2', '5']);
  });

  it('cuts off what was written and not recorded, and leaves files of others alone', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 3));
    const image = killed(join(root, 'out'));
    fs.appendFileSync(growing(image), '3\n4\n5');
    fs.writeFileSync(join(image, '9999999999999-1'), 'mine\n');
    const { put } = await opened(image);
    await put(numbered(3, 3));
    expect(lines(image)).toEqual([...numbers(0, 6), 'mine']);
  });

  it('does not touch a file that is done with', async () => {
    const before = await opened(join(root, 'out'), { rollSize: 1 });
    await before.put(numbered(0, 3));
    const image = killed(join(root, 'out'));
    fs.appendFileSync(growing(image), 'by its reader\n');
    await opened(image);
    expect(lines(image)).toEqual([...numbers(0, 3), 'by its reader']);
  });

  it('goes on when the growing file was taken away', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 3));
    const image = killed(join(root, 'out'));
    fs.rmSync(growing(image));
    const { put, messages } = await opened(image);
    await put(numbered(0, 5));
    expect(lines(image)).toEqual(['3', '4']);
    expect(messages()).toEqual([]);
  });

  it('says so when the growing file is shorter than it was', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 3));
    const image = killed(join(root, 'out'));
    fs.truncateSync(growing(image), 2);
    const { put, messages } = await opened(image);
    await put(numbered(3, 1));
    expect(messages()).toEqual([expect.stringMatching(/has lost its last 4 bytes/)]);
    expect(lines(image)).toEqual(['0', '3']);
  });

  it('says so when its record is damaged, and cuts nothing off', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 3));
    const image = killed(join(root, 'out'));
    const record = join(image, '.exactly-once', 'written');
    const bytes = fs.readFileSync(record);
    for (const at of [40, 4096 + 40]) bytes[at]! ^= 1;
    fs.writeFileSync(record, bytes);
    fs.appendFileSync(growing(image), '3\n');
    const { put, messages } = await opened(image);
    await put(numbered(3, 1));
    expect(messages()).toEqual([expect.stringMatching(/2 of its 2 slots are damaged. Nothing is cut off/)]);
    expect(lines(image)).toEqual(['0', '1', '2', '3', '3']);
  });

  it('does not write events that nobody has numbered, and rejects none of them', async () => {
    const { put, logged, sink, flow } = await opened(join(root, 'out'));
    void put(Batch.of([event('a')]));
    expect(await logged(/file_roll: a write failed/)).toContain(
      'events come that no file channel has numbered. It works directly behind one file channel',
    );
    expect(sink.trouble).toMatchObject({ code: 'MR_CONFIG', retriable: true });
    expect(flow.ledger.rejected).toBe(0);
    expect(lines(join(root, 'out'))).toEqual([]);
    flow.abort();
    await flow.done.catch(() => undefined);
    flows.splice(0);
  });

  it('does not write events of two logs', async () => {
    const { put, logged, flow } = await opened(join(root, 'out'));
    await put(numbered(0, 3));
    void put(numbered(0, 3, { ...log, id: 'two' }));
    await logged(/events of several file channels come together/);
    expect(lines(join(root, 'out'))).toEqual(numbers(0, 3));
    flow.abort();
    await flow.done.catch(() => undefined);
    flows.splice(0);
  });

  it('takes all events of another log for new ones, and says so', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 3));
    const image = killed(join(root, 'out'));
    const { put, messages } = await opened(image);
    await put(numbered(0, 2, { ...log, id: 'two' }));
    expect(lines(image)).toEqual(['0', '1', '2', '0', '1']);
    expect(messages()).toEqual([expect.stringMatching(/the events come from log two, and those before came from one/)]);
  });

  it('numbers that a log had lost and gives again are new', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 10));
    const image = killed(join(root, 'out'));
    const { put } = await opened(image);
    // Events 6 to 9 were not safe when the power went.
    await put(numbered(4, 8, { ...log, life: 'second', end: 6 }));
    expect(lines(image)).toEqual([...numbers(0, 10), ...numbers(6, 6)]);
  });

  it('says which events neither come again nor are in the output', async () => {
    const before = await opened(join(root, 'out'));
    await before.put(numbered(0, 10));
    const image = killed(join(root, 'out'));
    const { put, messages } = await opened(image);
    await put(numbered(15, 1, { ...log, life: 'second', end: 20 }));
    expect(messages()).toEqual([expect.stringMatching(/events 10 to 14 do not come any more/)]);
  });

  it('says so when events have too many gaps, and still loses none', async () => {
    const { put, messages } = await opened(join(root, 'out'));
    for (let number = 0; number < 140; number += 2) await put(numbered(number, 1));
    expect(messages()).toEqual([expect.stringMatching(/more than 64 gaps/)]);
    await put(numbered(0, 140));
    expect(new Set(lines(join(root, 'out')))).toEqual(new Set(numbers(0, 140)));
  });

  it('is locked by directory and prefix', async () => {
    await opened(join(root, 'out'), { prefix: 'a-' });
    const other = await opened(join(root, 'out'), { prefix: 'b-' });
    await other.put(numbered(0, 1));
    const same = await opened(join(root, 'out'), { prefix: 'a-' });
    expect(await same.logged(/opening failed/)).toContain('.a-exactly-once is used by');
    expect(same.sink.trouble).toMatchObject({ code: 'MR_LOCKED' });
  });

  it('follows a file channel from life to life', async () => {
    const life = async () => {
      const log = recordingLog();
      const flow = inScope(new Scope({ log }), () =>
        run(
          seqSource({ totalEvents: 500, batchSize: 20 }),
          fileChannel({ dir: join(root, 'channel'), minimumRequiredSpace: 0, maxFileSize: 4096 }),
          fileRollSink({ directory: join(root, 'out'), exactlyOnce: true, rollSize: 1000 }),
        ),
      );
      await flow.done;
      expect(log.entries).toEqual([]);
      expect(flow.ledger.difference).toBe(0);
    };
    fs.mkdirSync(join(root, 'out'));
    await life();
    await life();
    expect(lines(join(root, 'out'))).toHaveLength(1000);
  });
});
