import * as platformatic from '@platformatic/kafka';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { quietLog } from '../../../../src/core/scope.ts';
import { Decoder, Encoder } from '../../../../src/protocols/kafka/brokers/coding.ts';
import { heartbeat, produce } from '../../../../src/protocols/kafka/brokers/requests.ts';
import type { Request, Wire } from '../../../../src/protocols/kafka/brokers/wire.ts';
import type { ConnectionSettings } from '../../../../src/protocols/kafka/client.ts';
import { loadKafkajs } from '../../../../src/protocols/kafka/kafkajs/package.ts';
import { createWires as kafkajsWires } from '../../../../src/protocols/kafka/kafkajs/wire.ts';
import { createWires as platformaticWires } from '../../../../src/protocols/kafka/platformatic/wire.ts';

const settings: ConnectionSettings = { brokers: [], clientId: 'of tests', log: quietLog };

interface Asked {
  readonly key: number;
  readonly version: number;
  readonly clientId: string;
  readonly body: Buffer;
  readonly socket: Socket;
  readonly answer: (body: Buffer) => void;
}

/** Hears requests, and answers to the first of kafkajs itself: each it knows from version 0 to 10. */
class Broker {
  readonly sockets = new Set<Socket>();
  readonly #heard: Asked[] = [];
  #tell: () => void = () => undefined;
  readonly #server: Server = createServer(socket => {
    this.sockets.add(socket);
    let bytes = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', chunk => {
      bytes = Buffer.concat([bytes, chunk]);
      for (let size = 0; bytes.length >= 4 && bytes.length >= (size = 4 + bytes.readInt32BE(0));) {
        this.#hear(socket, bytes.subarray(4, size));
        bytes = bytes.subarray(size);
      }
    });
  });

  async listen(): Promise<number> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening');
    return (this.#server.address() as { port: number }).port;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  async next(): Promise<Asked> {
    while (this.#heard.length === 0) await new Promise<void>(resolve => (this.#tell = resolve));
    return this.#heard.shift() as Asked;
  }

  #hear(socket: Socket, bytes: Buffer): void {
    const of = new Decoder(bytes);
    const [key, version, number, clientId] = [of.int16(), of.int16(), of.int32(), of.string()];
    const body = bytes.subarray(10 + Buffer.byteLength(clientId));
    const answer = (what: Buffer) => {
      socket.write(Buffer.concat([new Encoder().int32(4 + what.length).int32(number).bytes, what]));
    };
    const apiVersions = 18;
    if (key === apiVersions) {
      const keys = Array.from({ length: 40 }, (_, each) => each);
      const to = new Encoder().int16(0);
      answer(to.array(keys, each => to.int16(each).int16(0).int16(10)).int32(0).bytes);
      return;
    }
    this.#heard.push({ key, version, clientId, body, socket, answer });
    this.#tell();
  }
}

/** The two that a beat is answered with. */
const verdict = (throttle: number, errorCode: number) => new Encoder().int32(throttle).int16(errorCode).bytes;
const beat = heartbeat({ groupId: 'group', generation: 1, memberId: 'member' });
const lost = { code: 'MR_KAFKA_UNREACHABLE' };

describe.each([
  ['kafkajs', () => kafkajsWires(loadKafkajs(), settings)],
  ['platformatic', () => platformaticWires(platformatic, settings)],
])('a wire of %s', (_, createWires) => {
  let broker: Broker;
  let wire: Wire;
  let open: (requestTimeout: number) => Wire;

  beforeEach(async () => {
    broker = new Broker();
    const port = await broker.listen();
    open = requestTimeout => (wire = createWires().open({ host: '127.0.0.1', port }, requestTimeout));
    await open(30_000).connect();
  });
  afterEach(() => {
    wire.cut(new Error('the test is over'));
    broker.close();
  });

  it('has words for what brokers refuse, also for what only newer ones do', () => {
    expect(createWires().wordsFor(3).type).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(createWires().wordsFor(9999).type).toContain('UNKNOWN');
  });

  it('carries a request as it is, and its answer', async () => {
    const asking = wire.ask(beat);
    const { key, version, clientId, body, answer } = await broker.next();
    expect({ key, version, clientId, body }).toEqual({ key: 12, version: 3, clientId: 'of tests', body: beat.body });
    answer(verdict(0, 27));
    expect(await asking).toEqual({ throttle: 0, errorCode: 27 });
  });

  it('has several on the way', async () => {
    const asking = [wire.ask(beat), wire.ask(beat), wire.ask(beat)];
    const heard = [await broker.next(), await broker.next(), await broker.next()];
    heard.forEach(({ answer }, i) => answer(verdict(0, i)));
    expect((await Promise.all(asking)).map(({ errorCode }) => errorCode)).toEqual([0, 1, 2]);
  });

  it('waits for no answer to what is silent', async () => {
    const fields = { acks: 0, timeout: 1000, transactionalId: null };
    const sending = wire.ask(produce({ topic: 'a', partition: 0 }, Buffer.from('batch'), fields));
    expect((await broker.next()).body.subarray(-5).toString()).toBe('batch');
    expect((await sending).partitions).toEqual([]);
  });

  it('does not let a fetch hold up the others', async () => {
    const fetch: Request<{ throttle: number; errorCode: number }> = { ...beat, name: 'Fetch', key: 1 };
    const fetching = wire.ask(fetch);
    const { answer, socket } = await broker.next();
    const beating = wire.ask(beat);
    const other = await broker.next();
    expect(other.socket).not.toBe(socket);
    other.answer(verdict(0, 1));
    expect((await beating).errorCode).toBe(1);
    answer(verdict(0, 2));
    expect((await fetching).errorCode).toBe(2);
  });

  it('makes that one again when it was closed', async () => {
    const fetch: Request<{ throttle: number; errorCode: number }> = { ...beat, name: 'Fetch', key: 1 };
    const fetching = wire.ask(fetch);
    const first = await broker.next();
    first.answer(verdict(0, 1));
    await fetching;
    const ended = once(first.socket, 'close');
    first.socket.end();
    await ended;
    expect(wire.usable).toBe(true);
    const again = wire.ask(fetch);
    const second = await broker.next();
    second.answer(verdict(0, 2));
    expect((await again).errorCode).toBe(2);
    expect(second.socket).not.toBe(first.socket);
  });

  it('waits for an answer as long as it has to, and no longer', async () => {
    wire.cut(new Error('another one'));
    await open(100).connect();
    const patient = wire.ask({ ...beat, patience: 60_000 });
    const { answer } = await broker.next();
    await expect(wire.ask(beat)).rejects.toMatchObject(lost);
    answer(verdict(0, 4));
    expect((await patient).errorCode).toBe(4);
  });

  it('says that an answer cannot be read, and goes on', async () => {
    const asking = wire.ask(beat);
    (await broker.next()).answer(Buffer.alloc(3));
    await expect(asking).rejects.toMatchObject({
      code: 'MR_KAFKA',
      message: expect.stringContaining('127.0.0.1') as string,
    });
    expect(wire.usable).toBe(true);
    const again = wire.ask(beat);
    (await broker.next()).answer(verdict(0, 5));
    expect((await again).errorCode).toBe(5);
  });

  it('is of no more use when the broker is gone', async () => {
    const asking = wire.ask(beat);
    (await broker.next()).socket.destroy();
    await expect(asking).rejects.toMatchObject(lost);
    expect(wire.usable).toBe(false);
  });

  it('fails with what is given when it is cut', async () => {
    const asking = wire.ask(beat);
    const { socket } = await broker.next();
    const why = new Error('cut');
    const closed = once(socket, 'close');
    wire.cut(why);
    const refused = await asking.catch((thrown: unknown) => thrown as Error);
    expect(refused === why || (refused as Error).cause === why).toBe(true);
    expect(wire.usable).toBe(false);
    await closed;
  });

  it('says that nobody is there', async () => {
    broker.close();
    await expect(open(1000).connect()).rejects.toMatchObject(lost);
    expect(wire.usable).toBe(false);
  });
});

it('kafkajs asks brokers for what they know, so what they do not is never asked', async () => {
  const broker = new Broker();
  const port = await broker.listen();
  const wire = kafkajsWires(loadKafkajs(), settings).open({ host: '127.0.0.1', port }, 1000);
  await wire.connect();
  await expect(wire.ask({ ...beat, version: 11 })).rejects.toMatchObject({
    code: 'MR_KAFKA',
    retriable: false,
    message: expect.stringContaining('Kafka 2.4 or newer') as string,
  });
  wire.cut(new Error('the test is over'));
  broker.close();
});
