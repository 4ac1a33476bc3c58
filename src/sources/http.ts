/**
 * Events by HTTP POST, answered when they are safe: Flume's `http`.
 *
 * @module
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import type { Timer } from '../core/clock.ts';
import { defineSource } from '../core/component.ts';
import { MillraceError, systemCode, toError } from '../core/errors.ts';
import { newHeaders, type FlumeEvent } from '../core/event.ts';
import type { Counters } from '../core/metrics.ts';
import { choice, code, int, list, port, text } from '../core/options.ts';
import type { Emitter, Settled, SourceContext } from '../core/source.ts';
import { jsonCharsets, readJsonEvents } from '../protocols/json-events.ts';
import { listen } from '../protocols/listen.ts';
import { serverTls, tlsFields } from '../protocols/tls.ts';

const MiB = 1024 * 1024;

const options = z
  .object({
    port: port('Port to listen on; 0 picks a free one.'),
    bind: text('Address to listen on.', { default: '127.0.0.1', agentDefault: '0.0.0.0' }),
    handler: choice(['JSONHandler', 'BLOBHandler'], {
      'org.apache.flume.source.http.JSONHandler': 'JSONHandler',
      'org.apache.flume.source.http.BLOBHandler': 'BLOBHandler',
    })('What a body is: an array of events in JSON, or the body of one event.', { default: 'JSONHandler' }),
    mandatoryParameters: list('Query parameters that a request to the BLOBHandler must have; all become headers.', {
      flume: 'handler.mandatoryParameters',
      default: [],
    }),
    maxEventsPerRequest: int('Most events in one request; a request with more is answered 503.', {
      default: 100_000,
      min: 1,
      unit: 'events',
    }),
    maxBodyBytes: int('Longest body; a longer one is answered 413.', { default: 16 * MiB, min: 1, unit: 'bytes' }),
    maxPendingBytes: int('Bodies in memory, received or not yet settled, together; beyond it the answer is 503.', {
      default: 64 * MiB,
      min: 1,
      unit: 'bytes',
    }),
    maxPendingRequests: int('Requests at a time, received or not yet settled; beyond it the answer is 503.', {
      default: 1000,
      min: 1,
      unit: 'requests',
    }),
    maxConnections: int('Connections at a time; more are refused.', { default: 1000, min: 1, unit: 'connections' }),
    headersTimeout: int('How long the head of a request may take.', { default: 10_000, min: 1, unit: 'ms' }),
    requestTimeout: int('How long a whole request may take to arrive.', { default: 60_000, min: 1, unit: 'ms' }),
    answerTimeout: int('How long to wait for room in the channel before the answer is 503.', {
      default: 30_000,
      min: 1,
      unit: 'ms',
    }),
    keepAliveTimeout: int('How long a connection may wait for its next request.', {
      default: 30_000,
      min: 1,
      unit: 'ms',
    }),
    ...tlsFields,
    listening: code<(address: AddressInfo) => void>()('Called with the address once it listens.', { optional: true }),
  })
  .refine(({ ssl, keystore }) => !ssl || keystore !== undefined, {
    path: ['keystore'],
    message: 'ssl needs a key store: the path of a PKCS12 file with the private key and the certificate',
  });
type Options = z.output<typeof options>;
export type HttpSourceOptions = z.input<typeof options>;

/**
 * Takes events by POST, and GET as Flume does, on any path.
 *
 * **emits** the events of a request as one delivery · **pauses** by answering 503 · **completes** when it is stopped ·
 * **errors** when the port cannot be bound or the key store not be opened.
 *
 * 200: acked · 400: not understood, or rejected · 403, 405, 501: not a method for events · 413: over `maxBodyBytes` ·
 * 500: no body for JSON, a charset that is not UTF-8, UTF-16 or UTF-32, or a parameter missing · 503: nacked, no answer
 * in time, over a limit, or stopping; with `Retry-After` if it helps to send the same again. Whoever gets no 200 sends
 * again; events of a request that timed out may come twice then.
 */
export const httpSource = defineSource({
  type: 'http',
  className: 'org.apache.flume.source.http.HTTPSource',
  summary: 'Events by HTTP POST, as JSON or one body each, answered when the channel has them.',
  options,
  onFailure: 'report',
  // Requests have nothing to do with each other: one that fails does not hold up the rest.
  redelivery: { order: 'selective' },
  open: options => async (emitter: Emitter<FlumeEvent, Request>, context) => {
    const requests = new Requests(options, emitter, context);
    const limits = {
      headersTimeout: Math.min(options.headersTimeout, options.requestTimeout),
      requestTimeout: options.requestTimeout,
      keepAliveTimeout: options.keepAliveTimeout,
      connectionsCheckingInterval: Math.min(1000, options.headersTimeout),
    };
    const tls = await serverTls(options);
    const server =
      tls === undefined
        ? createServer(limits, requests.receive)
        : createTlsServer({ ...limits, ...tls, handshakeTimeout: options.headersTimeout }, requests.receive);
    server.maxConnections = options.maxConnections;
    // A client that has closed its side still gets its answer, as from Flume. Not in Node's documentation.
    Object.assign(server, { httpAllowHalfOpen: true });
    // Longer than any pause that is not a fault: a client that does not read its answers ends here.
    server.timeout = options.requestTimeout + options.answerTimeout;
    server
      .on('checkContinue', requests.receive)
      .on('connection', requests.connected)
      .on('clientError', requests.misunderstood)
      .on('drop', requests.turnedAway);
    const address = await listen(server, options);
    server.on('error', cause => context.log.warn(`${context.name}: ${cause.message}`, { cause }));
    const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
    context.log.info(`${context.name} listens on http${tls === undefined ? '' : 's'}://${host}:${address.port}.`);
    options.listening?.(address);

    let closed: Promise<void>;
    return {
      pull: () => requests.pull(),
      settled: (request, what, cause) => requests.settled(request, what, cause),
      stop() {
        closed = new Promise(resolve => server.close(() => resolve()));
        requests.stop();
      },
      async close() {
        // Answers may still be on their way; each of them closes its connection.
        const timer = context.clock.after(lingerMs, () => server.closeAllConnections());
        await closed;
        context.clock.cancel(timer);
      },
    };
  },
});

/** How long the last answers may take to be sent. */
const lingerMs = 1000;

/** An answer that is not 200. Thrown by handlers. */
class Refusal extends Error {
  readonly status: number;
  /** Whether the same request can succeed a little later. */
  readonly again: boolean;

  constructor(status: number, message: string, again = false) {
    super(message);
    this.status = status;
    this.again = again;
  }
}

/** In Flume's words, which people look for. */
const channelFull = (why: string, again = true) =>
  new Refusal(503, `Error appending event to channel. Channel might be full. ${why}`, again);

const stopping = new Refusal(503, 'The source is stopping.', true);

/** Methods that carry no events. Any that is not here is 501, as in Flume. */
const methods: Readonly<Record<string, number>> = {
  POST: 200,
  GET: 200,
  HEAD: 200,
  PUT: 405,
  DELETE: 405,
  OPTIONS: 403,
  TRACE: 403,
};

/** Makes events of a request. */
type Handler = (message: IncomingMessage, body: Buffer, options: Options) => readonly FlumeEvent[];

const handlers: Readonly<Record<Options['handler'], Handler>> = {
  JSONHandler: ({ headers }, body, { maxEventsPerRequest }) => {
    if (body.length === 0) throw new Refusal(500, 'The request has no body; expected an array of events in JSON.');
    const given = /;\s*charset\s*=\s*"?([^\s;"]+)/i.exec(headers['content-type'] ?? '')?.[1] ?? 'utf-8';
    const charset = jsonCharsets.find(known => known === given.toLowerCase());
    if (charset === undefined) throw new Refusal(500, `JSON handler supports ${jsonCharsets.join(', ')} only.`);
    return readJsonEvents(body, charset, maxEventsPerRequest);
  },
  BLOBHandler: ({ url = '' }, body, { mandatoryParameters }) => {
    const query = url.indexOf('?');
    const headers = newHeaders();
    // Of parameters that come twice, the first counts.
    for (const [name, value] of new URLSearchParams(query < 0 ? '' : url.slice(query))) headers[name] ??= value;
    const missing = mandatoryParameters.find(name => !(name in headers));
    if (missing !== undefined) throw new Refusal(500, `Please specify ${missing} parameter in the request.`);
    return [{ headers: Object.freeze(headers), body }];
  },
};

const refusalOf = (thrown: unknown): Refusal => {
  if (thrown instanceof Refusal) return thrown;
  const { message } = toError(thrown);
  if (!(thrown instanceof MillraceError))
    return new Refusal(500, `Deserializer threw unexpected exception. ${message}`);
  // Sending the same again cannot help, but Flume's clients know no other answer to this.
  if (thrown.code === 'MR_EVENT_TOO_LARGE') return channelFull(message, false);
  return new Refusal(400, `Bad request from client. ${message}`);
};

/** One request, until its events are settled. */
class Request {
  readonly message: IncomingMessage;
  readonly response: ServerResponse;
  chunks: Buffer[] = [];
  bytes = 0;
  events: readonly FlumeEvent[] = [];
  timer: Timer;

  constructor(message: IncomingMessage, response: ServerResponse) {
    this.message = message;
    this.response = response;
  }
}

/** All requests at hand: arriving, waiting for credit, or on their way. */
class Requests {
  readonly #options: Options;
  readonly #emitter: Emitter<FlumeEvent, Request>;
  readonly #context: SourceContext;
  readonly #counters: Counters;
  readonly #arriving = new Set<Request>();
  /** Complete, oldest first. A set, because those that give up leave from the middle. */
  readonly #waiting = new Set<Request>();
  /** Of all three kinds. */
  #count = 0;
  #bytes = 0;
  #wanted = false;
  #stopping = false;

  constructor(options: Options, emitter: Emitter<FlumeEvent, Request>, context: SourceContext) {
    this.#options = options;
    this.#emitter = emitter;
    this.#context = context;
    const own = { RefusedConnectionCount: 0, ...context.counters, PendingRequests: 0 };
    this.#counters = Object.assign(context.counters, own);
  }

  // --- what the server calls

  readonly receive = (message: IncomingMessage, response: ServerResponse): void => {
    const request = new Request(message, response);
    this.#counters['PendingRequests'] = ++this.#count;
    const refusal = this.#atFirstSight(message);
    if (refusal !== undefined) return this.#refuse(request, refusal);
    if (message.headers.expect !== undefined) response.writeContinue();
    this.#arriving.add(request);
    message
      .on('data', (chunk: Buffer) => this.#read(request, chunk))
      .on('end', () => this.#complete(request))
      .on('close', () => this.#broken(request));
  };

  readonly connected = (socket: Socket): void => {
    const { counters } = this.#context;
    counters.OpenConnectionCount++;
    socket.once('close', () => counters.OpenConnectionCount--);
  };

  /** What came is not HTTP, or came too slowly. */
  readonly misunderstood = (cause: Error, socket: Duplex): void => {
    const code = systemCode(cause) ?? '';
    if (code !== 'ECONNRESET') this.#context.counters.EventReadFail++;
    const status = code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
    if (socket.writable && /^(HPE|ERR_HTTP)_/.test(code))
      socket.write(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    // Not when that is written: somebody who does not read would stay.
    socket.destroy();
  };

  /** There are `maxConnections` already. */
  readonly turnedAway = (): void => {
    this.#counters['RefusedConnectionCount'] = (this.#counters['RefusedConnectionCount'] ?? 0) + 1;
  };

  // --- what the session calls

  pull(): void {
    this.#wanted = true;
    this.#next();
  }

  settled(request: Request, what: Settled, cause: Error | undefined): void {
    this.#forget(request);
    const why = cause?.message ?? '';
    if (what === 'acked') this.#answer(request);
    else if (what === 'nacked') this.#answer(request, channelFull(why));
    else this.#answer(request, what === 'rejected' ? new Refusal(400, `Bad request from client. ${why}`) : stopping);
  }

  /** What has not been emitted is the client's to send again. */
  stop(): void {
    this.#stopping = true;
    for (const request of [...this.#arriving, ...this.#waiting]) this.#refuse(request, stopping);
  }

  // --- the way of a request

  #atFirstSight({ method = '', headers }: IncomingMessage): Refusal | undefined {
    const { maxPendingRequests, maxBodyBytes } = this.#options;
    const status = methods[method] ?? 501;
    if (status !== 200) return new Refusal(status, `Events come by POST, not by ${method}.`);
    if (this.#stopping) return stopping;
    if (this.#count > maxPendingRequests) return channelFull(`There are ${maxPendingRequests} requests at a time.`);
    return Number(headers['content-length'] ?? 0) > maxBodyBytes ? this.#tooLong() : undefined;
  }

  #tooLong(): Refusal {
    return new Refusal(413, `The body is longer than ${this.#options.maxBodyBytes} bytes (maxBodyBytes).`);
  }

  #read(request: Request, chunk: Buffer): void {
    // Refused meanwhile: nothing is kept of what still comes.
    if (!this.#arriving.has(request)) return;
    const { maxBodyBytes, maxPendingBytes } = this.#options;
    request.chunks.push(chunk);
    request.bytes += chunk.length;
    this.#bytes += chunk.length;
    if (request.bytes > maxBodyBytes) this.#refuse(request, this.#tooLong());
    else if (this.#bytes > maxPendingBytes)
      this.#refuse(request, channelFull(`Bodies take up ${maxPendingBytes} bytes already.`));
  }

  #complete(request: Request): void {
    if (!this.#arriving.delete(request)) return;
    const { message, response, chunks } = request;
    const { handler, answerTimeout } = this.#options;
    const body = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
    request.chunks = [];
    try {
      request.events = handlers[handler](message, body, this.#options);
    } catch (thrown) {
      this.#refuse(request, refusalOf(thrown));
      return;
    }
    if (request.events.length === 0) {
      this.#forget(request);
      this.#answer(request);
      return;
    }
    this.#waiting.add(request);
    this.#next();
    // Mostly it is answered by now.
    if (!response.writableEnded) request.timer = this.#context.clock.after(answerTimeout, () => this.#late(request));
  }

  #next(): void {
    if (!this.#wanted) return;
    for (const request of this.#waiting) {
      if (request.response.destroyed) {
        // The client has gone without an answer, and will send again.
        this.#forget(request);
        continue;
      }
      this.#wanted = false;
      this.#waiting.delete(request);
      this.#emitter.emit(request.events, request);
      return;
    }
  }

  #late(request: Request): void {
    const refusal = channelFull(`There was no room within ${this.#options.answerTimeout} ms.`);
    if (this.#waiting.has(request)) return this.#refuse(request, refusal);
    // On its way: it may arrive after all, and again when the client repeats it.
    this.#context.counters.ChannelWriteFail++;
    this.#answer(request, refusal);
  }

  /** The connection broke before the request was complete, unless it was complete before. */
  #broken(request: Request): void {
    if (!this.#arriving.has(request)) return;
    this.#context.counters.EventReadFail++;
    this.#forget(request);
  }

  #refuse(request: Request, refusal: Refusal): void {
    const { counters } = this.#context;
    if (refusal.status === 503) counters.ChannelWriteFail++;
    else counters.EventReadFail++;
    this.#forget(request);
    this.#answer(request, refusal);
  }

  #forget(request: Request): void {
    this.#arriving.delete(request);
    this.#waiting.delete(request);
    this.#counters['PendingRequests'] = --this.#count;
    this.#bytes -= request.bytes;
    request.chunks = [];
  }

  #answer({ response, timer }: Request, refusal?: Refusal): void {
    this.#context.clock.cancel(timer);
    if (response.headersSent || response.destroyed) return;
    if (this.#stopping) response.shouldKeepAlive = false;
    if (refusal === undefined) {
      response.end();
      return;
    }
    response.writeHead(refusal.status, {
      'Content-Type': 'text/plain; charset=utf-8',
      ...(refusal.status === 405 && { Allow: 'POST, GET, HEAD' }),
      ...(refusal.again && { 'Retry-After': '1' }),
    });
    response.end(`${refusal.message}\n`);
  }
}
