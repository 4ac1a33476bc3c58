/**
 * Lines over TCP, one event per line, `OK` after each accepted one: Flume's `netcat`.
 *
 * @module
 */
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { TextDecoder } from 'node:util';
import { z } from 'zod';
import { defineSource } from '../core/component.ts';
import { Batch, noHeaders, type Block, type FlumeEvent } from '../core/event.ts';
import type { Counters } from '../core/metrics.ts';
import { choice, code, flag, int, port, text } from '../core/options.ts';
import type { Emitter, Settled, SourceContext } from '../core/source.ts';
import { cutLines } from '../protocols/lines.ts';
import { listen } from '../protocols/listen.ts';

const options = z.object({
  bind: text('Address to listen on.', { default: '127.0.0.1' }),
  port: port('Port to listen on; 0 picks a free one.'),
  maxLineLength: int('Longest line, its newline included. A longer one is refused and its connection closed.', {
    flume: 'max-line-length',
    default: 512,
    min: 1,
    unit: 'characters',
  }),
  ackEveryEvent: flag('Whether to answer each line with OK, or with FAILED and a reason.', {
    flume: 'ack-every-event',
    default: true,
  }),
  encoding: choice(['utf-8', 'utf-16', 'utf-16le', 'utf-16be', 'iso-8859-1', 'us-ascii'])(
    'Encoding of what clients send; bodies are UTF-8. Bytes of UTF-8 are passed on as they are.',
    { default: 'utf-8' },
  ),
  maxConnections: int('Connections at a time; more are refused.', { default: 1000, min: 1, unit: 'connections' }),
  listening: code<(address: AddressInfo) => void>()('Called with the address once it listens.', { optional: true }),
});
type Options = z.output<typeof options>;
export type NetcatOptions = z.input<typeof options>;

/**
 * Listens for lines.
 *
 * **emits** the complete lines of each read as one delivery · **pauses** a connection while its lines are unsettled or its
 * replies unread · **completes** when it is stopped · **errors** when the port cannot be bound.
 *
 * With `ackEveryEvent`, a line that was nacked or rejected is answered `FAILED: <why>`, and is the client's to send again;
 * lines that had no room together are tried one by one first. Without, it is delivered again from memory. A
 * last line without newline counts when the client ends its side, but not when the connection breaks.
 */
export const netcatSource = defineSource({
  type: 'netcat',
  className: 'org.apache.flume.source.NetcatSource',
  summary: 'Lines over TCP, one event each, with OK as the answer.',
  options,
  settling: ({ ackEveryEvent }) => ({ onFailure: ackEveryEvent ? 'report' : 'redeliver', replayable: ackEveryEvent }),
  open: options => async (emitter: Emitter<FlumeEvent, Sent>, context) => {
    const connections = new Set<Connection>();
    const counters: Counters = Object.assign(context.counters, { RefusedConnectionCount: 0, ...context.counters });
    const server = createServer({ allowHalfOpen: true, keepAlive: true }, socket => {
      const connection = new Connection(socket, options, emitter, context);
      connections.add(connection);
      context.counters.OpenConnectionCount = connections.size;
      socket.once('close', () => {
        connections.delete(connection);
        context.counters.OpenConnectionCount = connections.size;
      });
    });
    server.maxConnections = options.maxConnections;
    server.on('drop', () => {
      counters['RefusedConnectionCount'] = (counters['RefusedConnectionCount'] ?? 0) + 1;
    });
    const address = await listen(server, options);
    context.log.info(`${context.name} listens on ${address.address}:${address.port}.`);
    options.listening?.(address);
    return {
      settled: ({ connection, batch }, what, cause, failed) => connection.settled(batch, what, cause, failed),
      async stop() {
        server.close();
        await Promise.all(Array.from(connections, connection => connection.finish()));
      },
      close() {
        for (const connection of connections) connection.destroy();
      },
    };
  },
});

/** The lines of one read, on their way, and whose they are. */
interface Sent {
  readonly connection: Connection;
  readonly batch: Batch;
}

const nothing = Buffer.alloc(0);
const ok = Buffer.from('OK\n');

/** The lines are always cut as blocks. */
const blockOf = ({ block }: Batch): Block => block as Block;

/** Whether it is the last lines that failed, as when a channel has no room for them. */
const endsWith = ({ length, events }: Batch, failed: Batch<unknown>): boolean =>
  failed.events[0] === events[length - failed.length];

/** How long a connection that was ended may take to close. */
const lingerMs = 1000;

/** One client: reads, waits for its lines to be settled, answers, reads on. */
class Connection {
  readonly #socket: Socket;
  readonly #options: Options;
  readonly #emitter: Emitter<FlumeEvent, Sent>;
  readonly #context: SourceContext;
  readonly #decoder: TextDecoder | undefined;
  readonly #closed: Promise<void>;
  #unread: Buffer = nothing;
  #waiting = false;
  /** How many of the next lines go one by one: they have failed together. */
  #singly = 0;
  /** No more input: of the client's own accord, or because of a stop. */
  #ended = false;
  #left = false;

  constructor(socket: Socket, options: Options, emitter: Emitter<FlumeEvent, Sent>, context: SourceContext) {
    this.#socket = socket;
    this.#options = options;
    this.#emitter = emitter;
    this.#context = context;
    this.#decoder = options.encoding === 'utf-8' ? undefined : new TextDecoder(options.encoding);
    this.#closed = new Promise(resolve => socket.once('close', () => resolve()));
    socket
      .on('data', (chunk: Buffer) => this.#read(chunk))
      .on('drain', () => this.#next())
      .on('end', () => this.#end())
      .on('error', () => socket.destroy());
  }

  /** No more reading; resolves when what was read is answered. */
  finish(): Promise<void> {
    this.#ended = true;
    this.#next();
    return this.#closed;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  settled(batch: Batch, what: Settled, cause: Error | undefined, failed: Batch<unknown> | undefined): void {
    this.#waiting = false;
    if (what === 'released') return this.destroy();
    if (what === 'nacked' && batch.length > 1 && failed !== undefined && endsWith(batch, failed)) {
      this.#oneByOne(batch, failed.length);
      // Never from within the nack.
      return this.#context.clock.soon(() => this.#next());
    }
    if (this.#options.ackEveryEvent) this.#answer(batch, cause, failed);
    this.#next();
  }

  /** There was no room for all at once: as in Flume, each of the last lines is tried by itself. */
  #oneByOne(batch: Batch, failed: number): void {
    const [taken, { bytes }] =
      failed === batch.length
        ? [0, blockOf(batch)]
        : [batch.length - failed, blockOf(batch.split(batch.length - failed)[1])];
    this.#socket.write(Buffer.alloc(ok.length * taken, ok));
    this.#unread = Buffer.concat([bytes, this.#unread]);
    this.#singly = failed;
  }

  #answer(batch: Batch, cause: Error | undefined, failed: Batch<unknown> | undefined): void {
    if (failed === undefined) this.#socket.write(Buffer.alloc(ok.length * batch.length, ok));
    else {
      const refused = new Set<unknown>(failed.events);
      const all = refused.size === batch.length;
      const reason = `FAILED: ${cause?.message.replaceAll(/\s+/g, ' ')}\n`;
      this.#socket.write(batch.events.map(event => (all || refused.has(event) ? reason : 'OK\n')).join(''));
    }
  }

  #read(chunk: Buffer): void {
    if (this.#left) return;
    const bytes = this.#decoder === undefined ? chunk : Buffer.from(this.#decoder.decode(chunk, { stream: true }));
    this.#unread = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    this.#next();
  }

  #end(): void {
    this.#ended = true;
    if (this.#unread.length > 0 && this.#unread.at(-1) !== 0x0a)
      this.#unread = Buffer.concat([this.#unread, Buffer.from('\n')]);
    this.#next();
  }

  /** Hands over the lines there are, or reads on, or ends. One delivery at a time, so that answers are in order. */
  #next(): void {
    if (this.#waiting || this.#left || this.#socket.destroyed) return;
    if (this.#socket.writableNeedDrain) this.#socket.pause();
    else if (this.#emitLines()) return;
    else if (this.#tooLong(this.#unread, 0)) this.#refuse();
    else if (this.#ended) this.#leave();
    else this.#socket.resume();
  }

  /** Answers are flushed; a client that does not close its side then is not waited for. */
  #leave(farewell = ''): void {
    this.#unread = nothing;
    this.#left = true;
    this.#socket.end(farewell).resume();
    this.#context.clock.after(lingerMs, () => this.#socket.destroy(), true);
  }

  #emitLines(): boolean {
    const block = cutLines(this.#unread, noHeaders, this.#singly > 0 ? 1 : Infinity);
    if (block === undefined) return false;
    const attempts = this.#singly > 0 ? 1 : 0;
    this.#singly -= attempts;
    let batch = Batch.ofBlock(block);
    const long = this.#longLine(batch);
    if (long === 0) return false;
    if (long > 0) [batch] = batch.split(long);
    this.#unread = this.#unread.subarray(blockOf(batch).bytes.length);
    this.#waiting = true;
    // Before emit(), which may come back with the answer.
    this.#socket.pause();
    this.#emitter.emit(batch, { connection: this, batch }, undefined, attempts);
    return true;
  }

  /** The first line that is too long, or -1. */
  #longLine(batch: Batch): number {
    const { bytes, ends } = blockOf(batch);
    let start = 0;
    for (let i = 0; i < ends.length; i++) {
      const end = ends[i] as number;
      if (this.#tooLong(bytes, start, end + 1)) return i;
      start = end + 1;
    }
    return -1;
  }

  /** Bytes are at least as many as characters, so they are counted only when there are many. */
  #tooLong(bytes: Buffer, start: number, end = bytes.length): boolean {
    const { maxLineLength } = this.#options;
    return end - start > maxLineLength && bytes.toString('utf8', start, end).length > maxLineLength;
  }

  #refuse(): void {
    const { maxLineLength } = this.#options;
    this.#context.counters.EventReadFail++;
    this.#leave(`FAILED: Event exceeds the maximum length (${maxLineLength} chars, including newline)\n`);
  }
}
