import { connect, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { createSink, memoryChannel, run, type Flow, type FlumeEvent } from '../../src/index.ts';
import { netcatSource, type NetcatOptions } from '../../src/sources/netcat.ts';

const flows: Flow[] = [];
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(flows.splice(0).map(flow => flow.stop().catch(() => undefined)));
});

type Write = (events: readonly FlumeEvent[]) => void | Promise<void>;

/** A netcat source on a free port into `write`. */
const listening = async (write: Write, options: Partial<NetcatOptions> = {}) => {
  const address = await new Promise<AddressInfo>(listening => {
    const source = netcatSource({ port: 0, listening, ...options });
    flows.push(run(source, createSink(write)));
  });
  return { port: address.port, flow: flows.at(-1)! };
};

const open = async (port: number) => {
  const socket = connect({ port, host: '127.0.0.1' });
  sockets.push(socket);
  await once(socket, 'connect');
  let text = '';
  let changed = () => undefined as void;
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    changed();
  });
  socket.on('error', () => undefined);
  /** Resolves when that much has been answered. */
  const answered = async (length: number) => {
    while (text.length < length) await new Promise<void>(resolve => (changed = resolve));
    return text;
  };
  const closed = once(socket, 'close').then(() => text);
  return { socket, answered, closed };
};

const bodies = (received: readonly FlumeEvent[]) => received.map(({ body }) => body.toString());

describe('netcat source', () => {
  it('answers OK to each line, once the sink has it', async () => {
    const received: FlumeEvent[] = [];
    let let_go = () => undefined as void;
    const held = new Promise<void>(resolve => (let_go = resolve));
    const { port } = await listening(async events => {
      await held;
      received.push(...events);
    });
    const { socket, answered } = await open(port);
    socket.write('one\ntwo\n\nfour\r\n');
    let_go();
    expect(await answered(12)).toBe('OK\nOK\nOK\nOK\n');
    expect(bodies(received)).toEqual(['one', 'two', '', 'four\r']);
  });

  it('refuses connections beyond the limit, and counts them', async () => {
    const { port, flow } = await listening(() => undefined, { maxConnections: 1 });
    const { socket, answered } = await open(port);
    socket.write('one\n');
    await answered(3);
    expect(await (await open(port)).closed).toBe('');
    const counters = flow.metrics.snapshot()['SOURCE.netcat'];
    expect(counters).toMatchObject({ OpenConnectionCount: 1, RefusedConnectionCount: 1, GenericProcessingFail: 0 });
  });

  it('says nothing with ackEveryEvent off', async () => {
    const received: FlumeEvent[] = [];
    const { port } = await listening(events => void received.push(...events), { ackEveryEvent: false });
    const { socket, closed } = await open(port);
    socket.end('one\ntwo\n');
    expect(await closed).toBe('');
    expect(bodies(received)).toEqual(['one', 'two']);
  });

  it('joins lines that arrive in pieces and keeps bytes as they are', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 20 }),
        fc.array(fc.nat(30), { minLength: 1 }),
        async (lines, cuts) => {
          const clean = lines.map(line => Buffer.from(line.filter(byte => byte !== 10)));
          const received: FlumeEvent[] = [];
          const { port } = await listening(events => void received.push(...events));
          const { socket, closed } = await open(port);
          socket.setNoDelay(true);
          const bytes = Buffer.concat(clean.flatMap(line => [line, Buffer.from('\n')]));
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const next = at + cuts[i % cuts.length]! + 1;
            socket.write(bytes.subarray(at, next));
            at = next;
          }
          socket.end();
          expect(await closed).toBe('OK\n'.repeat(clean.length));
          expect(received.map(({ body }) => body.toString('hex'))).toEqual(clean.map(line => line.toString('hex')));
        },
      ),
      { numRuns: 30 },
    );
  });

  it('takes a last line without newline when the client ends its side', async () => {
    const received: FlumeEvent[] = [];
    const { port } = await listening(events => void received.push(...events));
    const { socket, closed } = await open(port);
    socket.end('one\nlast');
    expect(await closed).toBe('OK\nOK\n');
    expect(bodies(received)).toEqual(['one', 'last']);
  });

  it.each([
    ['utf-8', Buffer.from('grüße\n')],
    ['utf-16le', Buffer.from('grüße\n', 'utf16le')],
    ['iso-8859-1', Buffer.from('grüße\n', 'latin1')],
  ] as const)('reads %s', async (encoding, bytes) => {
    const received: FlumeEvent[] = [];
    const { port } = await listening(events => void received.push(...events), { encoding });
    const { socket, answered } = await open(port);
    socket.write(bytes);
    await answered(3);
    expect(bodies(received)).toEqual(['grüße']);
  });

  it('refuses a line that is too long, after the lines before it, and closes', async () => {
    const received: FlumeEvent[] = [];
    const { port, flow } = await listening(events => void received.push(...events), { maxLineLength: 10 });
    const { socket, closed } = await open(port);
    socket.write(`123456789\n${'x'.repeat(10)}\nafter\n`);
    expect(await closed).toBe('OK\nFAILED: Event exceeds the maximum length (10 chars, including newline)\n');
    expect(bodies(received)).toEqual(['123456789']);
    expect(flow.metrics.snapshot()['SOURCE.netcat']).toMatchObject({ EventReadFail: 1 });
  });

  it('counts characters, not bytes', async () => {
    const { port } = await listening(() => undefined, { maxLineLength: 10 });
    const { socket, answered } = await open(port);
    socket.write('ééééééééé\n');
    expect(await answered(3)).toBe('OK\n');
  });

  it('does not buffer an endless line', async () => {
    const { port } = await listening(() => undefined);
    const { socket, closed } = await open(port);
    const junk = Buffer.alloc(1 << 20);
    const writing = setInterval(() => socket.writable && socket.write(junk), 1);
    expect(await closed).toContain('FAILED: Event exceeds');
    clearInterval(writing);
  });

  it('answers FAILED with the reason when the channel stays full, and accepts again when it has room', async () => {
    let let_go = () => undefined as void;
    const held = new Promise<void>(resolve => (let_go = resolve));
    const received: FlumeEvent[] = [];
    const address = await new Promise<AddressInfo>(listening => {
      flows.push(
        run(
          netcatSource({ port: 0, listening }),
          memoryChannel({ capacity: 2, transactionCapacity: 2, keepAlive: 0 }),
          createSink(async events => {
            await held;
            received.push(...events);
          }),
        ),
      );
    });
    const { socket, answered } = await open(address.port);
    socket.write('0\n');
    await answered(3);
    socket.write('1\n2\n');
    const reply = await answered(20);
    // Together they had no room; one by one, as in Flume, two of them have.
    expect(reply).toMatch(/^OK\nOK\nFAILED: Space for commit to queue couldn't be acquired[^\n]*\n$/);
    let_go();
    while (received.length < 2) await new Promise(resolve => setImmediate(resolve));
    socket.write('3\n');
    expect(await answered(reply.length + 3)).toBe(`${reply}OK\n`);
    await flows.at(-1)!.stop();
    expect(bodies(received)).toEqual(['0', '1', '3']);
    expect(flows.at(-1)!.ledger.difference).toBe(0);
  });

  it('tries lines that have failed together one by one, later, as what they are: a second attempt', async () => {
    const seen: string[] = [];
    let inNext = false;
    let address: (value: AddressInfo) => void;
    const listens = new Promise<AddressInfo>(resolve => (address = resolve));
    const subscription = netcatSource({ port: 0, listening: where => address(where) }).subscribe(delivery => {
      seen.push(`${bodies(delivery.events).join(' ')}: ${delivery.attempt}${inNext ? ', within' : ''}`);
      inNext = true;
      if (delivery.length > 1) delivery.nack(new Error('no room'));
      else delivery.ack();
      inNext = false;
    });
    const { socket, answered } = await open((await listens).port);
    socket.write('a\nb\n');
    await answered(6);
    socket.write('c\n');
    await answered(9);
    subscription.unsubscribe();
    socket.destroy();
    expect(seen).toEqual(['a b: 1', 'a: 2', 'b: 2', 'c: 1']);
  });

  it('stops reading from a client that does not read its answers', async () => {
    let received = 0;
    const { port } = await listening(events => void (received += events.length));
    const { socket } = await open(port);
    socket.pause();
    const lines = Buffer.from('x\n'.repeat(500_000));
    let sent = 0;
    const write = () => {
      sent++;
      return socket.write(lines);
    };
    // Bounded by what sockets buffer: in the end neither side takes any more, and nothing moves.
    let before = -1;
    while (before !== received) {
      before = received;
      if (!socket.writableNeedDrain && sent < 1000) write();
      await new Promise(resolve => setTimeout(resolve, 200));
    }
    expect(received).toBeGreaterThan(0);
    expect(received).toBeLessThan(sent * 500_000);
    socket.resume();
    while (received === before) await new Promise(resolve => setImmediate(resolve));
    socket.destroy();
  });

  it('survives connections that break, and binary junk', async () => {
    const received: FlumeEvent[] = [];
    const { port } = await listening(events => void received.push(...events));
    for (let i = 0; i < 20; i++) {
      const { socket } = await open(port);
      socket.write(Buffer.from(Array.from({ length: 300 }, (_, at) => (at * 31 + i * 17) & 0xff)));
      socket.resetAndDestroy();
    }
    const { socket, answered } = await open(port);
    socket.write('still here\n');
    await answered(3);
    expect(bodies(received)).toContain('still here');
  });

  it('stops with every answer sent', async () => {
    const received: FlumeEvent[] = [];
    const { port, flow } = await listening(async events => {
      await new Promise(resolve => setImmediate(resolve));
      received.push(...events);
    });
    const { socket, closed } = await open(port);
    socket.write('one\ntwo\npartial');
    while (received.length < 2) await new Promise(resolve => setImmediate(resolve));
    const stopped = flow.stop();
    expect(await closed).toBe('OK\nOK\n');
    await stopped;
    expect(bodies(received)).toEqual(['one', 'two']);
  });

  it('says which port is taken and what to do', async () => {
    const { port } = await listening(() => undefined);
    const second = run(
      netcatSource({ port }),
      createSink(() => undefined),
    );
    await expect(second.done).rejects.toMatchObject({
      code: 'MR_ADDRESS_IN_USE',
      message: expect.stringContaining(`port ${port}`),
    });
  });
});
