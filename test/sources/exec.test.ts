import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import { createSink, execSource, memoryChannel, run, type Flow, type FlumeEvent } from '../../src/index.ts';
import type { ExecOptions } from '../../src/sources/exec.ts';
import { FakeClock, recordingLog, sourceLaws, type SourceSpec } from '../../src/testing/index.ts';

const flows: Flow[] = [];
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'exec-'));
});
afterEach(async () => {
  await Promise.allSettled(flows.splice(0).map(flow => flow.stop()));
  rmSync(dir, { recursive: true, force: true });
});

const at = (name: string) => join(dir, name);
const sh = '/bin/sh -c';
const bash = '/bin/bash -c';

/** What came out of a command, and a way to wait for more of it. */
class Output {
  readonly flow: Flow;
  readonly events: FlumeEvent[] = [];
  readonly batches: (readonly FlumeEvent[])[] = [];
  readonly log = recordingLog();
  #changed = () => undefined as void;

  constructor(options: ExecOptions, write?: () => void | Promise<void>, clock?: FakeClock) {
    const sink = createSink(async events => {
      await write?.();
      this.batches.push(events);
      this.events.push(...events);
      this.#changed();
    });
    const source = execSource({ ...options }, { name: 'exec' });
    this.flow = inScope(new Scope({ log: this.log, ...(clock && { clock }) }), () => run(source, sink));
    flows.push(this.flow);
  }

  get lines(): string[] {
    return this.events.map(({ body }) => body.toString('latin1'));
  }

  async until(count: number): Promise<string[]> {
    while (this.events.length < count) await new Promise<void>(resolve => (this.#changed = resolve));
    return this.lines;
  }

  /** Resolves when the flow has completed by itself. */
  async done(): Promise<string[]> {
    await this.flow.done;
    return this.lines;
  }

  said(what: RegExp) {
    return this.log.entries.filter(({ message }) => what.test(message)).length;
  }
}

/** Resolves when no process has this number any more. */
const gone = async (pid: number) => {
  for (;;) {
    try {
      process.kill(pid, 0);
      // A child whose parent has not looked yet is dead all the same.
      if (readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')) return;
    } catch {
      return;
    }
    await new Promise(setImmediate);
  }
};

const pidIn = async (file: string): Promise<number> => {
  for (;;) {
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    if (text.endsWith('\n')) return Number(text);
    await new Promise(setImmediate);
  }
};

describe('exec source', () => {
  it('delivers each line once, in order, and completes when the command has ended', async () => {
    const output = new Output({ command: 'seq 1 5000' });
    expect(await output.done()).toEqual(Array.from({ length: 5000 }, (_, i) => String(i + 1)));
    expect(Math.max(...output.batches.map(({ length }) => length))).toBe(20);
    expect(output.said(/has ended with exit code 0/)).toBe(1);
    expect(output.flow.ledger.held).toBe(0);
  });

  it('cuts the command at white space, without a shell', async () => {
    expect(await new Output({ command: '  printf  %s\\n\t"a  $HOME `id`|cat ' }).done()).toEqual([
      '"a',
      '$HOME',
      '`id`|cat',
    ]);
  });

  it('leaves pipes, quotes and backticks to a shell', async () => {
    expect(await new Output({ shell: sh, command: 'echo "`echo one  two`" | tr o 0; echo three' }).done()).toEqual([
      '0ne tw0',
      'three',
    ]);
  });

  it('takes \\n, \\r\\n and \\r as ends, wherever reads cut them', async () => {
    const byte = fc.constantFrom(10, 13, 97, 0, 0xc3, 0xff);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(byte, { minLength: 1, maxLength: 8 }), { maxLength: 6 }), async chunks => {
        const server = createServer({ noDelay: true }, socket => {
          void (async () => {
            for (const chunk of chunks) {
              await new Promise<void>(resolve => void socket.write(Buffer.from(chunk), () => resolve()));
              await new Promise(setImmediate);
            }
            socket.end();
          })();
        }).listen(0, '127.0.0.1');
        await once(server, 'listening');
        const { port } = server.address() as AddressInfo;
        const output = new Output({ shell: bash, command: `exec cat < /dev/tcp/127.0.0.1/${port}` });
        const lines = Buffer.from(chunks.flat())
          .toString('latin1')
          .split(/\r\n|\n|\r/);
        if (lines.at(-1) === '') lines.pop();
        expect(await output.done()).toEqual(lines);
        server.close();
      }),
      { numRuns: 40 },
    );
  });

  it('keeps NUL and invalid text as it is, and delivers a last line without end', async () => {
    writeFileSync(at('odd'), Buffer.from([0x61, 0, 0xff, 0xfe, 10, 10, 0xc3]));
    const output = new Output({ command: `cat ${at('odd')}` });
    await output.done();
    expect(output.events.map(({ body }) => body.toString('hex'))).toEqual(['6100fffe', '', 'c3']);
  });

  it('delivers a long line in parts, and says which they are', async () => {
    const output = new Output({
      shell: sh,
      command: 'echo before; head -c 300000 /dev/zero | tr "\\0" x; echo; echo after',
      maxLineLength: 100_000,
      batchSize: 1000,
    });
    await output.done();
    const parts = output.events.filter(({ headers }) => headers['linePart'] !== undefined);
    expect(output.lines.at(0)).toBe('before');
    expect(output.lines.at(-1)).toBe('after');
    expect(Buffer.concat(parts.map(({ body }) => body)).equals(Buffer.alloc(300_000, 'x'))).toBe(true);
    expect(parts.map(({ headers }) => headers['linePart'])).toEqual(parts.map((_, i) => String(i + 1)));
    expect(parts.map(({ headers }) => headers['lineParts']).filter(Boolean)).toEqual([String(parts.length)]);
    for (const { body } of output.events) expect(body.length).toBeLessThanOrEqual(200_000);
    expect(output.flow.metrics.snapshot()['SOURCE.exec']).toMatchObject({ LinePartCount: parts.length - 1 });
  });

  it('lets lines wait for a batch, but not for longer than batchTimeout', async () => {
    const output = new Output({
      shell: sh,
      command: 'echo 1; echo 2; sleep 0.05; echo 3; sleep 100',
      batchSize: 3,
      batchTimeout: 60_000,
    });
    await output.until(3);
    expect(output.batches.map(({ length }) => length)).toEqual([3]);
    const other = new Output({ shell: sh, command: 'echo 1; sleep 100', batchSize: 3, batchTimeout: 10 });
    expect(await other.until(1)).toEqual(['1']);
  });

  it('does not read while nobody takes lines', async () => {
    let written = 0;
    const server = createServer({ noDelay: true }, socket => {
      const line = Buffer.alloc(64 * 1024, 'x'.repeat(99) + '\n');
      const write = () => {
        while (!socket.destroyed && socket.write(line)) written += line.length;
      };
      socket.on('error', () => undefined).on('drain', write);
      write();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    let go = () => undefined as void;
    const held = new Promise<void>(resolve => (go = resolve));
    const output = new Output(
      { shell: bash, command: `exec cat < /dev/tcp/127.0.0.1/${port}`, batchSize: 10 },
      () => held,
    );
    // The command is stuck when nothing moves any more.
    for (let before = -1; before !== written || written === 0;) {
      before = written;
      await new Promise(resolve => setTimeout(resolve, 100));
    }
    expect(written).toBeLessThan(64 * 1024 * 1024);
    go();
    await output.until(written / 100);
    await output.flow.stop();
    server.close();
  });

  it('delivers again what a sink nacks', async () => {
    let failures = 2;
    const output = new Output({ command: 'seq 1 50' }, () => {
      if (failures-- > 0) throw new Error('not now');
    });
    expect(await output.done()).toEqual(Array.from({ length: 50 }, (_, i) => String(i + 1)));
  });

  it('starts the command again, with restart', async () => {
    const output = new Output({ shell: sh, command: 'echo run; exit 3', restart: true, restartThrottle: 5 });
    expect(await output.until(3)).toEqual(['run', 'run', 'run']);
    expect(output.said(/exit code 3. It is started again in 5 ms/)).toBeGreaterThan(0);
    await output.flow.stop();
  });

  it('says how the command ended', async () => {
    const failed = new Output({ shell: sh, command: 'exit 7' });
    await failed.done();
    expect(failed.said(/exit code 7/)).toBe(1);
    const killed = new Output({ shell: sh, command: 'kill -KILL $$' });
    await killed.done();
    expect(killed.said(/SIGKILL ended the command/)).toBe(1);
  });

  it('errors when the command cannot be started, and tries again with restart', async () => {
    const output = new Output({ command: at('missing') });
    await expect(output.flow.done).rejects.toMatchObject({
      code: 'MR_SOURCE_FAILED',
      message: expect.stringContaining('missing cannot be started') as string,
    });
    const again = new Output({ command: at('later'), restart: true, restartThrottle: 5 });
    while (again.said(/later cannot be started: .*ENOENT/) === 0) await new Promise(setImmediate);
    writeFileSync(at('later'), '#!/bin/sh\necho here\n', { mode: 0o755 });
    expect((await again.until(1))[0]).toBe('here');
  });

  it('logs standard error if asked to', async () => {
    const command = 'echo oops >&2; echo fine; head -c 100000 /dev/zero | tr "\\0" x >&2; echo >&2; echo last >&2';
    const output = new Output({ shell: sh, command, logStdErr: true });
    expect(await output.done()).toEqual(['fine']);
    expect(output.said(/the command says: oops/)).toBe(1);
    expect(output.said(/the command says: last/)).toBe(1);
    for (const { message } of output.log.entries) expect(message.length).toBeLessThan(10_000);
    const quiet = new Output({ shell: sh, command });
    await quiet.done();
    expect(quiet.said(/oops/)).toBe(0);
  });

  describe('stop', () => {
    it('ends the command and everything it has started', async () => {
      const command = `sleep 1000 & echo $! > ${at('child')}; (sleep 1000 & echo $! > ${at('grandchild')}; wait) & echo $$ > ${at('self')}; echo up; wait`;
      const output = new Output({ shell: sh, command });
      await output.until(1);
      const pids = await Promise.all(['self', 'child', 'grandchild'].map(name => pidIn(at(name))));
      await output.flow.stop();
      await Promise.all(pids.map(gone));
    });

    it('kills what does not end when it is asked to', async () => {
      const clock = new FakeClock();
      const command = `(trap "" TERM; echo $BASHPID > ${at('child')}; while :; do sleep 0.1; done) & echo up; exec sleep 1000`;
      const output = new Output({ shell: bash, command }, undefined, clock);
      while (output.events.length === 0) await clock.advance(0);
      const pid = await pidIn(at('child'));
      const stopped = output.flow.stop().then(() => true);
      await clock.advance(5000);
      while (!(await Promise.race([stopped, clock.advance(0)])));
      await gone(pid);
    });

    it('delivers what the command had written, and its last words', async () => {
      let go = () => undefined as void;
      const held = new Promise<void>(resolve => (go = resolve));
      const command = `trap "echo bye; exit" TERM; seq 1 1000; echo > ${at('written')}; while :; do sleep 0.01; done`;
      const output = new Output({ shell: bash, command, batchSize: 10 }, () => held);
      while (!existsSync(at('written'))) await new Promise(setImmediate);
      const stopped = output.flow.stop();
      go();
      await stopped;
      expect(output.lines).toEqual([...Array.from({ length: 1000 }, (_, i) => String(i + 1)), 'bye']);
    });

    it('does not wait for the end of one that never ends', async () => {
      const output = new Output({ shell: bash, command: 'trap "" TERM; yes', batchSize: 1000 });
      await output.until(1);
      await output.flow.stop();
    });

    it('is not followed by a restart', async () => {
      const output = new Output({
        shell: sh,
        command: `echo x >> ${at('runs')}; echo up`,
        restart: true,
        restartThrottle: 60_000,
      });
      await output.until(1);
      await output.flow.stop();
      expect(readFileSync(at('runs'), 'utf8')).toBe('x\n');
    });

    it('is not needed when the process ends: nothing survives it', async () => {
      const script = `
        import { createSink, execSource, run } from '${join(import.meta.dirname, '../../src/index.ts')}';
        run(execSource({ shell: '${sh}', command: 'echo $$; sleep 1000' }), createSink(events => {
          console.log(events[0].body.toString());
          process.exit(1);
        }));`;
      writeFileSync(at('flow.mts'), script);
      const child = spawn(process.execPath, ['--import', 'tsx', at('flow.mts')], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const chunks: Buffer[] = [];
      child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
      await once(child, 'close');
      await gone(Number(Buffer.concat(chunks).toString()));
    });
  });

  it.each([
    [{ command: ' ' }, /command: it is empty/],
    [{ command: 'x', charset: 'UTF-16' }, /charset: expected an encoding that extends ASCII/],
    [{ command: 'x', batchSize: 0 }, /batchSize/],
    [{}, /command is missing/],
  ])('refuses %j', (options, message) => {
    expect(() => execSource(options as never)).toThrow(message);
  });

  it('loses no line on its way through a channel that is full', async () => {
    const received: string[] = [];
    const sink = createSink(async events => {
      await new Promise(setImmediate);
      received.push(...events.map(({ body }) => body.toString()));
    });
    const flow = run(execSource({ command: 'seq 1 20000', batchSize: 100 }), memoryChannel({ capacity: 100 }), sink);
    await flow.done;
    expect(received).toEqual(Array.from({ length: 20_000 }, (_, i) => String(i + 1)));
  });

  describe('laws', () => {
    const spec: SourceSpec = {
      name: 'exec',
      clock: 'real',
      runs: 12,
      bodies: 'lines',
      headers: false,
      replayable: false,
      async make(tuning) {
        let current: Socket | undefined;
        let waiting = '';
        let over = false;
        const server = createServer({ noDelay: true }, socket => {
          current = socket;
          socket.write(waiting);
          waiting = '';
          if (over) socket.end();
          socket
            .resume()
            .on('error', () => undefined)
            .on('close', () => {
              if (current === socket) current = undefined;
            });
        }).listen(0, '127.0.0.1');
        await once(server, 'listening');
        const { port } = server.address() as AddressInfo;
        const command = `exec cat < /dev/tcp/127.0.0.1/${port}`;
        return {
          source: execSource({ shell: bash, command, batchSize: 3, ...tuning }),
          feed(events) {
            const lines = events.map(({ body }) => `${body.toString()}\n`).join('');
            if (current === undefined) waiting += lines;
            else current.write(lines);
          },
          end() {
            over = true;
            current?.end();
          },
          close: () => void server.close(),
        };
      },
    };
    for (const law of sourceLaws(spec)) it.concurrent(law.name, () => law.run());
  });
});
