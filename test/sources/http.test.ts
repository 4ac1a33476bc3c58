import { once } from 'node:events';
import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { afterEach, describe, expect, it, test } from 'vitest';
import { inScope, Scope, type Log } from '../../src/core/scope.ts';
import { createSink, memoryChannel, MillraceError, run, type Flow, type FlumeEvent } from '../../src/index.ts';
import { httpSource } from '../../src/sources/http.ts';
import { recordingLog } from '../../src/testing/index.ts';

const flows: Flow[] = [];
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(flows.splice(0).map(flow => flow.stop({ timeout: 5000 }).catch(() => undefined)));
});

type Options = Partial<Parameters<typeof httpSource>[0]>;
type Place = { log?: Log; concurrency?: number };
type Write = (events: readonly FlumeEvent[]) => void | Promise<void>;

/** A source on a free port into `write`; what `write` throws is nacked at once. */
const listening = async (write: Write, options: Options = {}, { log, concurrency = 1 }: Place = {}) => {
  const address = await new Promise<AddressInfo>((listening, failed) => {
    const source = httpSource({ port: 0, listening, ...options });
    const sink = createSink(write, { retry: { attempts: 1 }, concurrency });
    const flow = inScope(new Scope(log && { log }), () => run(source, sink));
    flow.done.catch(failed);
    flows.push(flow);
  });
  const flow = flows.at(-1)!;
  const counters = () => flow.metrics.snapshot()['SOURCE.http']!;
  return { port: address.port, address, flow, counters };
};

/** A source into memory, and what arrived there. */
const collecting = async (options: Options = {}) => {
  const received: FlumeEvent[] = [];
  return { received, ...(await listening(events => void received.push(...events), options)) };
};

/** A sink that holds what it gets until it is told what to do with it. */
const holding = () => {
  const held: { events: readonly FlumeEvent[]; ack: () => void; fail: (cause: Error) => void }[] = [];
  let changed = () => undefined as void;
  const write: Write = events =>
    new Promise((ack, fail) => {
      held.push({ events, ack, fail });
      changed();
    });
  const holds = async (count: number) => {
    while (held.length < count) await new Promise<void>(resolve => (changed = resolve));
  };
  return { held, holds, write };
};

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

interface Posted {
  method?: string;
  path?: string;
  headers?: Record<string, string | number>;
  agent?: Agent;
}

const send = (port: number, body: string | Buffer | undefined, posted: Posted = {}): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { method = 'POST', path = '/', headers = {}, agent } = posted;
    const given = { host: '127.0.0.1', port, method, path, headers, ...(agent && { agent }) };
    const request = httpRequest(given, response => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, text }));
    });
    request.on('error', reject).end(body);
  });

const post = (port: number, events: unknown, posted?: Posted) => send(port, JSON.stringify(events), posted);

/** A bare connection, and what comes back on it. */
const open = async (port: number) => {
  const socket = connect({ port, host: '127.0.0.1' });
  sockets.push(socket);
  await once(socket, 'connect');
  let text = '';
  let changed = () => undefined as void;
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    changed();
  });
  socket.on('error', () => undefined);
  const answered = async (pattern: RegExp) => {
    while (!pattern.test(text)) await new Promise<void>(resolve => (changed = resolve));
    return text;
  };
  const closed = new Promise<string>(resolve => socket.once('close', () => resolve(text)));
  return { socket, answered, closed };
};

const head = (length: number, more = '') => `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n${more}\r\n`;
const bodies = (received: readonly FlumeEvent[]) => received.map(({ body }) => body.toString());

describe('http source, as real Flume answers', () => {
  const valid = '[{"headers":{"a":"b"},"body":"x"}]';
  const type = (charset: string) => ({ 'Content-Type': `application/json; charset=${charset}` });
  const utf32 = (text: string) => Buffer.concat(Array.from(text, char => Buffer.from([0, 0, 0, char.charCodeAt(0)])));

  test.each<[string, number, string | Buffer | undefined, Posted]>([
    ['an array of events', 200, valid, {}],
    ['an empty array', 200, '[]', {}],
    ['any path', 200, valid, { path: '/some/where?x=y' }],
    ['missing headers and body', 200, '[{}]', {}],
    ['numbers', 200, '[{"headers":{"n":5},"body":5}]', {}],
    ['unknown members', 200, '[{"more":[{}]}]', {}],
    ['GET with a body', 200, valid, { method: 'GET', headers: { 'Content-Length': valid.length } }],
    ['UTF-8, quoted, in capitals', 200, valid, { headers: type('"UTF-8"') }],
    ['UTF-16', 200, Buffer.from(valid, 'utf16le').swap16(), { headers: type('utf-16') }],
    ['UTF-32', 200, utf32(valid), { headers: type('UTF-32') }],
    ['broken JSON', 400, '[{]', {}],
    ['an object', 400, '{}', {}],
    ['plain text', 400, 'hello', {}],
    ['a duplicate header', 400, '[{"headers":{"a":"1","a":"2"}}]', {}],
    ['a body that is an object', 400, '[{"body":{}}]', {}],
    ['bytes that are not UTF-8', 400, Buffer.from('[{"body":"\xff"}]', 'latin1'), {}],
    ['no body', 500, undefined, {}],
    ['GET', 500, undefined, { method: 'GET' }],
    ['HEAD', 500, undefined, { method: 'HEAD' }],
    ['a charset that JSON has not', 500, valid, { headers: type('latin1') }],
    ['UTF-16LE by name', 500, valid, { headers: type('utf-16le') }],
    ['PUT', 405, valid, { method: 'PUT' }],
    ['DELETE', 405, undefined, { method: 'DELETE' }],
    ['OPTIONS', 403, undefined, { method: 'OPTIONS' }],
    ['TRACE', 403, undefined, { method: 'TRACE' }],
    ['PATCH', 501, valid, { method: 'PATCH' }],
  ])('%s: %i', async (_, status, body, posted) => {
    const { port, received, counters } = await collecting();
    const answer = await send(port, body, posted);
    expect(answer.status).toBe(status);
    if (status === 200) expect(answer).toMatchObject({ text: '', headers: { 'content-length': '0' } });
    else if (posted.method !== 'HEAD') expect(answer.text).not.toBe('');
    expect(answer.headers['retry-after']).toBeUndefined();
    expect(received).toHaveLength(status === 200 && body !== '[]' ? 1 : 0);
    expect(counters()['EventReadFail']).toBe(status === 200 ? 0 : 1);
  });

  it('says in the answer what is wrong, and where', async () => {
    const { port } = await collecting();
    const { text } = await send(port, '[{"body":"x"},{"body":]');
    expect(text).toBe('Bad request from client. expected text, a number, true, false or null at byte 22, found "]".\n');
  });

  it('delivers headers and bodies as they are', async () => {
    const { port, received, counters } = await collecting();
    await post(port, [{ headers: { host: 'a', n: 5 }, body: 'höllo\n' }, { body: null }]);
    expect(received.map(({ headers, body }) => [{ ...headers }, body.toString()])).toEqual([
      [{ host: 'a', n: '5' }, 'höllo\n'],
      [{}, ''],
    ]);
    expect(counters()).toMatchObject({
      AppendBatchReceivedCount: 1,
      AppendBatchAcceptedCount: 1,
      EventReceivedCount: 2,
      EventAcceptedCount: 2,
    });
  });

  it('is the same by its class name and through chunks', async () => {
    const { port, received } = await collecting({
      handler: 'org.apache.flume.source.http.JSONHandler' as 'JSONHandler',
    });
    const chunks = ['[{"bo', 'dy":"in', ' pieces"}]'];
    const { socket, answered } = await open(port);
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    for (const chunk of chunks) socket.write(`${chunk.length.toString(16)}\r\n${chunk}\r\n`);
    socket.write('0\r\n\r\n');
    expect(await answered(/\r\n\r\n/)).toMatch(/^HTTP\/1.1 200 OK/);
    expect(bodies(received)).toEqual(['in pieces']);
  });

  it('says which handlers there are', () => {
    expect(() => httpSource({ port: 0, handler: 'com.example.Mine' as 'JSONHandler' })).toThrow(
      'handler: expected one of JSONHandler, BLOBHandler, found "com.example.Mine"',
    );
  });
});

describe('http source with the BLOBHandler', () => {
  const blob = { handler: 'BLOBHandler', mandatoryParameters: ['a', 'b'] } as const;

  it('makes one event of a body, and headers of the query', async () => {
    const { port, received } = await collecting(blob);
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const { status } = await send(port, bytes, { path: '/x?a=1&b=2&a=3&c=%C3%A9+x&__proto__=p&empty' });
    expect(status).toBe(200);
    expect(received[0]!.body.equals(bytes)).toBe(true);
    expect(Object.entries(received[0]!.headers)).toEqual([
      ['a', '1'],
      ['b', '2'],
      ['c', 'é x'],
      ['__proto__', 'p'],
      ['empty', ''],
    ]);
  });

  it('takes an empty body, as Flume does', async () => {
    const { port, received } = await collecting({ handler: 'BLOBHandler' });
    expect((await send(port, undefined, { method: 'GET' })).status).toBe(200);
    expect(received).toMatchObject([{ headers: {}, body: Buffer.alloc(0) }]);
  });

  it('asks for parameters that are missing', async () => {
    const { port, received } = await collecting(blob);
    const answer = await send(port, 'x', { path: '/?a=1' });
    expect(answer).toMatchObject({ status: 500, text: 'Please specify b parameter in the request.\n' });
    expect(received).toEqual([]);
  });
});

describe('http source and its channel', () => {
  it('answers when the events are settled, not before', async () => {
    const { held, holds, write } = holding();
    const { port } = await listening(write);
    let status: number | undefined;
    const answered = post(port, [{ body: 'x' }]).then(answer => (status = answer.status));
    await holds(1);
    // Others get through to the end meanwhile.
    expect((await post(port, [])).status).toBe(200);
    expect(status).toBeUndefined();
    held[0]!.ack();
    expect(await answered).toBe(200);
  });

  it('503 with Retry-After for a nack, and the events are the client’s again', async () => {
    const { port, flow, counters } = await listening(() => {
      throw new Error('disk on fire');
    });
    const answer = await post(port, [{ body: 'x' }]);
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(answer.text).toMatch(/^Error appending event to channel\. Channel might be full\..*disk on fire/);
    expect(counters()).toMatchObject({ ChannelWriteFail: 1, EventAcceptedCount: 0 });
    expect(flow.ledger).toMatchObject({ accepted: 0, held: 0, difference: 0 });
  });

  it('503 when a memory channel stays full', async () => {
    const { write } = holding();
    const address = await new Promise<AddressInfo>(listening => {
      const channel = memoryChannel({ capacity: 1, keepAlive: 0 });
      flows.push(run(httpSource({ port: 0, listening }), channel, createSink(write)));
    });
    expect((await post(address.port, [{ body: '1' }])).status).toBe(200);
    const answer = await post(address.port, [{ body: '2' }]);
    expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
    expect(answer.text).toContain('Channel might be full.');
    flows.at(-1)!.abort();
  });

  it('400 for a reject', async () => {
    const { port, flow } = await listening(() => {
      throw new MillraceError('MR_EVENT_TOO_LARGE', 'no such column');
    });
    const answer = await post(port, [{ body: 'x' }]);
    expect(answer).toMatchObject({ status: 400, text: 'Bad request from client. no such column\n' });
    expect(flow.ledger).toMatchObject({ rejected: 1, difference: 0 });
  });

  it('one that fails does not hold up the others', async () => {
    const { port } = await listening(async events => {
      if (events[0]!.body.toString() === 'bad') throw new Error('no');
    });
    const statuses = await Promise.all(
      Array.from({ length: 40 }, async (_, i) => (await post(port, [{ body: i % 2 === 0 ? 'bad' : 'good' }])).status),
    );
    expect(statuses).toEqual(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 503 : 200)));
  });

  it('nor does it make them come twice', async () => {
    const { held, holds, write } = holding();
    const { port } = await listening(write, {}, { concurrency: 2 });
    const bad = post(port, [{ body: 'bad' }]);
    await holds(1);
    const good = post(port, [{ body: 'good' }]);
    await holds(2);
    held[0]!.fail(new Error('no'));
    expect((await bad).status).toBe(503);
    held[1]!.ack();
    expect((await good).status).toBe(200);
    expect(held).toHaveLength(2);
  });

  it('503 with Flume’s text for more events than the channel takes at a time', async () => {
    const { port, received } = await collecting({ maxEventsPerRequest: 2 });
    const answer = await post(port, [{}, {}, {}]);
    expect(answer.status).toBe(503);
    expect(answer.text).toContain('Error appending event to channel. Channel might be full. there are more than 2');
    expect(answer.headers['retry-after']).toBeUndefined();
    expect(received).toEqual([]);
    expect((await post(port, [{}, {}])).status).toBe(200);
  });

  it('withdraws what got no credit in time', async () => {
    const { held, holds, write } = holding();
    const options = { answerTimeout: 50, maxPendingRequests: 2, maxInFlight: { deliveries: 1 } };
    const { port, flow, counters } = await listening(write, options);
    const first = post(port, [{ body: 'emitted' }]);
    await holds(1);
    const second = await post(port, [{ body: 'withdrawn' }]);
    expect(second).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
    expect(second.text).toContain('There was no room within 50 ms.');
    expect((await first).status).toBe(503);
    expect((await post(port, [])).status).toBe(200);
    held[0]!.ack();
    // What comes next is the next request, not the one that was given up.
    const third = post(port, [{ body: 'third' }]);
    await holds(2);
    held[1]!.ack();
    expect((await third).status).toBe(200);
    expect(held.flatMap(({ events }) => bodies(events))).toEqual(['emitted', 'third']);
    expect(counters()).toMatchObject({ ChannelWriteFail: 2, EventAcceptedCount: 2 });
    expect(flow.ledger.difference).toBe(0);
  });

  it('does not emit for a client that has gone', async () => {
    const { held, holds, write } = holding();
    const { port, counters } = await listening(write, { maxInFlight: { deliveries: 1 } });
    const first = post(port, [{ body: 'first' }]);
    await holds(1);
    const { socket, closed } = await open(port);
    const body = '[{"body":"gone"}]';
    socket.write(head(body.length) + body);
    const third = post(port, [{ body: 'third' }]);
    // The third has arrived when the source has read it; the second was written before.
    while (counters()['OpenConnectionCount']! < 3) await new Promise(setImmediate);
    socket.resetAndDestroy();
    await closed;
    while (counters()['OpenConnectionCount']! > 2) await new Promise(setImmediate);
    held[0]!.ack();
    await holds(2);
    held[1]!.ack();
    await Promise.all([first, third]);
    expect(held.flatMap(({ events }) => bodies(events))).toEqual(['first', 'third']);
  });
});

describe('http source, its limits', () => {
  it('413 before a byte of a body that is said to be too long', async () => {
    const { port, received } = await collecting({ maxBodyBytes: 100 });
    const { socket, answered } = await open(port);
    socket.write(head(101));
    expect(await answered(/maxBodyBytes/)).toMatch(/^HTTP\/1.1 413 .*longer than 100 bytes/s);
    expect(received).toEqual([]);
  });

  it('413 for one that turns out to be, and the connection goes on', async () => {
    const limits = { maxBodyBytes: 100, maxPendingBytes: 200 };
    const { port, received, counters } = await collecting({ ...limits, handler: 'BLOBHandler' });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const chunked = { headers: { 'Transfer-Encoding': 'chunked' }, agent };
    expect((await send(port, Buffer.alloc(100, 'x'), chunked)).status).toBe(200);
    expect((await send(port, Buffer.alloc(1_000_000, 'x'), chunked)).status).toBe(413);
    expect((await send(port, Buffer.alloc(100, 'x'), chunked)).status).toBe(200);
    agent.destroy();
    expect(received).toHaveLength(2);
    expect(counters()).toMatchObject({ EventReadFail: 1, OpenConnectionCount: 1 });
  });

  it('a client that waits to be asked is told at once', async () => {
    const { port, received } = await collecting({ maxBodyBytes: 20 });
    const { socket, answered } = await open(port);
    socket.write(head(21, 'Expect: 100-continue\r\n'));
    expect(await answered(/maxBodyBytes/)).toMatch(/^HTTP\/1.1 413/);
    const second = await open(port);
    second.socket.write(head(12, 'Expect: 100-continue\r\n'));
    await second.answered(/^HTTP\/1.1 100 Continue\r\n\r\n/);
    second.socket.write('[{"body":1}]');
    await second.answered(/HTTP\/1.1 200/);
    expect(bodies(received)).toEqual(['1']);
  });

  it('100 MB are refused without being kept', async () => {
    const { port } = await collecting();
    const { socket, answered } = await open(port);
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    // What is no more than garbage is not kept.
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const inUse = () => {
      collect();
      return process.memoryUsage().arrayBuffers;
    };
    const before = inUse();
    const chunk = Buffer.alloc(1_000_000, '[');
    let most = 0;
    for (let i = 0; i < 100; i++) {
      socket.write('f4240\r\n');
      socket.write(chunk);
      if (!socket.write('\r\n')) await once(socket, 'drain');
      if (i % 10 === 9) most = Math.max(most, inUse() - before);
    }
    socket.write('0\r\n\r\n');
    expect(await answered(/maxBodyBytes/)).toMatch(/^HTTP\/1.1 413/);
    expect(most).toBeLessThan(64_000_000);
    expect((await post(port, [{}])).status).toBe(200);
  });

  test.each<[string, number, (size: number) => string]>([
    ['deep', 400, size => '['.repeat(size)],
    ['deep inside', 400, size => `[{"x":${'{"x":'.repeat(size / 5)}`],
    ['wide, of wrong types', 400, size => `[${'0,'.repeat(size / 2)}0]`],
    ['wide', 503, size => `[${'{},'.repeat(size / 3)}{}]`],
    ['one long number', 200, size => `[{"body":1${'0'.repeat(size)}}]`],
    ['one long word', 400, size => `[{"body":${'t'.repeat(size)}}]`],
    ['one key again and again', 400, size => `[{"headers":{${'"a":"",'.repeat(size / 7)}"a":""}}]`],
    ['nothing but escapes', 200, size => `[{"body":"${'\\u0041'.repeat(size / 6)}"}]`],
  ])('bombs: %s', async (_, status, bomb) => {
    const { port } = await collecting();
    const answer = await send(port, bomb(2_000_000));
    expect(answer.status).toBe(status);
    expect((await post(port, [{}])).status).toBe(200);
  });

  it('503 for more bytes than may be pending, until they are settled', async () => {
    const { held, holds, write } = holding();
    const { port, counters } = await listening(write, { maxPendingBytes: 1000 });
    const first = post(port, [{ body: 'x'.repeat(900) }]);
    await holds(1);
    const answer = await post(port, [{ body: 'x'.repeat(100) }]);
    expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
    expect(answer.text).toContain('Bodies take up 1000 bytes already.');
    held[0]!.ack();
    await first;
    expect((await post(port, [])).status).toBe(200);
    const last = post(port, [{ body: 'x'.repeat(900) }]);
    await holds(2);
    held[1]!.ack();
    expect((await last).status).toBe(200);
    expect(counters()['PendingRequests']).toBe(0);
  });

  it('pending requests are bounded on one connection too', async () => {
    const { write } = holding();
    const { port, flow, counters } = await listening(write, { maxPendingRequests: 3, answerTimeout: 50 });
    const { socket, answered } = await open(port);
    const body = '[{}]';
    socket.write((head(body.length) + body).repeat(10));
    const text = await answered(/(HTTP\/1.1 503[^]*){10}/);
    expect(text.match(/There are 3 requests at a time/g)).toHaveLength(7);
    // Answered, and still on their way.
    expect(counters()['PendingRequests']).toBe(3);
    flow.abort();
  });

  it('connections beyond the limit are refused', async () => {
    const { port, counters } = await collecting({ maxConnections: 2 });
    const [one] = [await open(port), await open(port)];
    while (counters()['OpenConnectionCount']! < 2) await new Promise(setImmediate);
    const third = await open(port);
    expect(await third.closed).toBe('');
    expect(counters()).toMatchObject({ OpenConnectionCount: 2, RefusedConnectionCount: 1, GenericProcessingFail: 0 });
    one.socket.destroy();
    while (counters()['OpenConnectionCount']! > 1) await new Promise(setImmediate);
    expect((await post(port, [{}])).status).toBe(200);
  });
});

describe('http source and clients that misbehave', () => {
  it('ends connections that send nothing, or their head by drops', async () => {
    const { port, counters } = await collecting({ headersTimeout: 100 });
    const silent = await open(port);
    const slow = await open(port);
    slow.socket.write('POST / HTTP/1.1\r\nHost: x\r\nX-Slow');
    expect(await slow.closed).toMatch(/^HTTP\/1.1 408 Request Timeout/);
    await silent.closed;
    while (counters()['OpenConnectionCount']! > 0) await new Promise(setImmediate);
  });

  it('ends a request whose body does not come', async () => {
    const { port, counters } = await collecting({ requestTimeout: 100 });
    const { socket, closed } = await open(port);
    socket.write(`${head(100)}[`);
    expect(await closed).toMatch(/^HTTP\/1.1 408/);
    while (counters()['OpenConnectionCount']! > 0) await new Promise(setImmediate);
    expect(counters()['EventReadFail']).toBeGreaterThan(0);
  });

  it('ends a connection without a next request', async () => {
    const { port } = await collecting({ keepAliveTimeout: 50 });
    const { socket, closed } = await open(port);
    socket.write(`${head(4)}[{}]`);
    expect(await closed).toMatch(/^HTTP\/1.1 200/);
  });

  it('answers a client that has closed its side', async () => {
    const { held, holds, write } = holding();
    const { port } = await listening(write);
    const { socket, closed } = await open(port);
    socket.end(`${head(4)}[{}]`);
    await holds(1);
    // Its end has been seen by the time that another request is answered.
    await post(port, []);
    held[0]!.ack();
    expect(await closed).toMatch(/^HTTP\/1.1 200/);
  });

  it('forgets a body that breaks off', async () => {
    const { port, received, counters } = await collecting({ maxPendingRequests: 1 });
    const { socket } = await open(port);
    socket.write(`${head(100)}[{}`);
    while (counters()['OpenConnectionCount'] === 0) await new Promise(setImmediate);
    socket.destroy();
    while (counters()['OpenConnectionCount']! > 0) await new Promise(setImmediate);
    expect((await post(port, [{ body: 'next' }])).status).toBe(200);
    expect(bodies(received)).toEqual(['next']);
  });

  it('is not filled up by a client that never reads', async () => {
    const { port, counters } = await collecting({ requestTimeout: 200, answerTimeout: 200 });
    const { socket, closed } = await open(port);
    socket.pause();
    const requests = Buffer.from(`${head(4)}[{}]`.repeat(1000));
    // Sends until nobody takes it any more: then answers fill up its side, and the source has stopped reading.
    while (!socket.destroyed && counters()['EventReceivedCount']! < 1_000_000)
      if (!socket.write(requests) && !(await drained(socket))) break;
    expect((await post(port, [{}])).status).toBe(200);
    expect(counters()['EventReceivedCount']).toBeLessThan(1_000_000);
    // It is not waited for longer than for anybody else.
    while (counters()['OpenConnectionCount']! > 1) await new Promise(setImmediate);
    socket.resume();
    await closed;
  });

  test('junk is answered or cut off, and counted', async () => {
    const { port, counters, received } = await collecting();
    let junk = 0;
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 200 }),
      fc.string({ minLength: 1, maxLength: 200 }).map(text => Buffer.from(text)),
      fc
        .constantFrom('\x16\x03\x01\x02\x00', 'GET\r\n\r\n', 'POST / HTTP/9.9\r\n\r\n', head(5).replace('5', '-5'))
        .map(text => Buffer.from(text, 'latin1')),
      fc.constant(Buffer.from(`POST / HTTP/1.1\r\nHost: x\r\n${'X: y\r\n'.repeat(5000)}`)),
    );
    await fc.assert(
      fc.asyncProperty(bytes, async bytes => {
        // Without a line break it may be the beginning of something.
        const { socket, closed } = await open(port);
        socket.write(bytes);
        socket.end('\r\n\r\n\0\r\n\r\n');
        expect(await closed).toMatch(/^(HTTP\/1.1 (400 Bad Request|4\d\d|5\d\d)|$)/);
        junk++;
      }),
      { numRuns: 200 },
    );
    expect(received).toEqual([]);
    expect(counters()['EventReadFail']).toBeGreaterThanOrEqual(junk);
    expect((await post(port, [{}])).status).toBe(200);
  });
});

/** False when a socket is not read for a while. */
const drained = (socket: Socket) =>
  new Promise<boolean>(resolve => {
    const timer = setTimeout(() => resolve(false), 300);
    socket.once('drain', () => {
      clearTimeout(timer);
      resolve(true);
    });
  });

describe('http source, begin and end', () => {
  it('says who has the port, and what to do', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    await expect(listening(() => undefined, { port })).rejects.toMatchObject({
      code: 'MR_ADDRESS_IN_USE',
      message: `port ${port} on 127.0.0.1 is in use. Stop the process that listens there, or set another \`port\`.`,
    });
    taken.close();
  });

  it('says where it listens', async () => {
    const log = recordingLog();
    const { port } = await listening(() => undefined, {}, { log });
    expect(log.entries).toMatchObject([{ level: 'info', message: `http listens on http://127.0.0.1:${port}.` }]);
  });

  it('a stop answers what is under way and closes', async () => {
    const { held, holds, write } = holding();
    const { port, flow } = await listening(write, { maxInFlight: { deliveries: 1 } });
    const agent = new Agent({ keepAlive: true });
    const emitted = post(port, [{ body: 'emitted' }], { agent });
    await holds(1);
    const waiting = post(port, [{ body: 'waiting' }], { agent });
    const arriving = await open(port);
    arriving.socket.write(`${head(100)}[`);
    const idle = await open(port);
    await new Promise(setImmediate);
    const stopped = flow.stop();
    const told = await waiting;
    expect(told).toMatchObject({ status: 503, headers: { connection: 'close' }, text: 'The source is stopping.\n' });
    expect(await arriving.answered(/stopping/)).toMatch(/^HTTP\/1.1 503/);
    await expect(post(port, [{}])).rejects.toThrow('ECONNREFUSED');
    held[0]!.ack();
    const answer = await emitted;
    expect(answer).toMatchObject({ status: 200, headers: { connection: 'close' } });
    await stopped;
    await idle.closed;
    agent.destroy();
    expect(held).toHaveLength(1);
    expect(flow.ledger).toMatchObject({ accepted: 1, delivered: 1, difference: 0 });
  });

  it('an abort answers too', async () => {
    const { holds, write } = holding();
    const { port, flow } = await listening(write);
    const answer = post(port, [{ body: 'x' }]);
    await holds(1);
    flow.abort();
    expect((await answer).status).toBe(503);
  });
});

describe('http source with TLS', () => {
  const keystore = join(import.meta.dirname, '../protocols/fixtures/server.p12');
  const tls = { ssl: true, keystore, keystorePassword: 'millrace' };

  const secure = (port: number, maxVersion?: 'TLSv1.2') =>
    new Promise<number>((resolve, reject) => {
      const given = {
        host: '127.0.0.1',
        port,
        method: 'POST',
        rejectUnauthorized: false,
        ...(maxVersion && { maxVersion }),
      };
      httpsRequest(given, response => resolve(response.resume().statusCode!))
        .on('error', reject)
        .end('[{"body":"x"}]');
    });

  it('speaks it, and nothing else', async () => {
    const { port, received, counters } = await collecting(tls);
    expect(await secure(port)).toBe(200);
    await expect(post(port, [{}])).rejects.toThrow();
    expect(bodies(received)).toEqual(['x']);
    expect(counters()['EventReadFail']).toBe(1);
  });

  it('speaks the versions it is told', async () => {
    const { port } = await collecting({ ...tls, excludeProtocols: ['TLSv1.2'] });
    expect(await secure(port)).toBe(200);
    await expect(secure(port, 'TLSv1.2')).rejects.toThrow();
  });

  it('needs a key store', () => {
    expect(() => httpSource({ port: 0, ssl: true })).toThrow('keystore: ssl needs a key store');
  });
});
