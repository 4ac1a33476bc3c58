/**
 * HTTP: small posts, `[{"headers":{…},"body":"…"}]` with one event of about 180 bytes, over keep-alive connections → HTTP
 * source with the JSON handler → memory channel (100 k events, transactions of 10 k) → null. 1 connection and 64, each with one request at a time.
 *
 * Rate: 200s per second that the client got in its measured seconds (5, or 3 with `--quick`), after 2 seconds of warming
 * up. Anything but a 200 fails the run, and the sink must have got every event that was answered. The client is a
 * process of its own that writes one prebuilt request to raw sockets and looks for the end of the answer; the bare
 * server shows how fast it is at least. CPU is the server's alone, over the measured seconds.
 *
 * @module
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing, taken } from './flume.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { freePort, listening, startChild, type Running } from './processes.ts';
import { column, cpuSeconds, peakRss, rate, type Run, type Sample, type Workload } from './workload.ts';

const WARM_UP = 2;

const memory = `
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000`;

/** Real Flume and millrace read the same text. */
export const conf = (port: number, channel = memory): string => `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = http
a1.sources.r1.bind = 127.0.0.1
a1.sources.r1.port = ${port}
a1.sources.r1.channels = c1
${channel}
a1.sinks.k1.type = null
a1.sinks.k1.batchSize = 1000
a1.sinks.k1.channel = c1
`;

const payload = JSON.stringify([{ headers: { host: 'web-1' }, body: 'x'.repeat(180) }]);

/** What the client tells: when its measured seconds begin and end, and at the end what it saw. */
interface Seen {
  /** 200s in the measured seconds. */
  readonly measured: number;
  /** 200s in all. */
  readonly all: number;
  /** The first answer that was none. */
  readonly wrong?: string;
  readonly p50: number;
  readonly p99: number;
}

interface Load {
  readonly port: number;
  readonly connections: number;
  readonly seconds: number;
}

/** Keep-alive connections, each with one request under way. */
export const client: ChildMain<Load> = async ({ port, connections, seconds }, tell) => {
  const request = Buffer.from(
    `POST / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\nContent-Length: ${payload.length}\r\n\r\n${payload}`,
  );
  const took: number[] = [];
  let all = 0;
  let recording = false;
  let open = true;
  let wrong: string | undefined;

  /** The length of the first answer in `text`, or 0 if it is not all there. */
  const lengthOf = (text: string): number => {
    const head = text.indexOf('\r\n\r\n');
    if (head === -1) return 0;
    const length = /content-length: *(\d+)/i.exec(text.slice(0, head))?.[1];
    if (length !== undefined) return text.length >= head + 4 + Number(length) ? head + 4 + Number(length) : 0;
    const end = text.indexOf('0\r\n\r\n', head + 4);
    return end === -1 ? 0 : end + 5;
  };

  const drive = async (socket: Socket): Promise<void> => {
    await once(socket, 'connect');
    let text = '';
    let sent = 0;
    const send = () => {
      sent = performance.now();
      socket.write(request);
    };
    const done = new Promise<void>((resolve, reject) => {
      socket.on('data', chunk => {
        text += chunk.toString('latin1');
        const length = lengthOf(text);
        if (length === 0) return;
        if (!text.startsWith('HTTP/1.1 200')) wrong ??= text.slice(0, 200);
        else {
          all++;
          if (recording) took.push(performance.now() - sent);
        }
        text = text.slice(length);
        if (open && wrong === undefined) send();
        else {
          socket.destroy();
          resolve();
        }
      });
      socket.on('error', reject);
      socket.on('close', () => (open ? reject(new Error('the server closed a connection')) : resolve()));
    });
    send();
    await done;
  };

  const sockets = Array.from({ length: connections }, () => connect({ port, host: '127.0.0.1', noDelay: true }));
  const driven = Promise.all(sockets.map(drive));
  driven.catch(() => undefined);
  await sleep(WARM_UP * 1000);
  recording = true;
  tell('began');
  await sleep(seconds * 1000);
  recording = false;
  tell('ended');
  open = false;
  await driven;
  took.sort((a, b) => a - b);
  const at = (share: number) => took[Math.floor(took.length * share)] ?? NaN;
  tell({ measured: took.length, all, wrong, p50: at(0.5), p99: at(0.99) } satisfies Record<keyof Seen, unknown>);
};

/** Drives a server, and waits until `received(n)` says that its sink has the n events. */
export const measured = async (
  run: Run,
  running: Running,
  port: number,
  received: (events: number) => Promise<unknown>,
): Promise<Sample> => {
  try {
    const load: Load = { port, connections: parseInt(run.case), seconds: run.quick ? 3 : 5 };
    const driver = startChild('http', 'client', load);
    try {
      await driver.told();
      const [began, cpuBefore] = [performance.now(), cpuOf(running.pid)];
      await driver.told();
      const seconds = (performance.now() - began) / 1000;
      const cpu = cpuOf(running.pid) - cpuBefore;
      const seen = await driver.told<Seen>();
      if (seen.wrong !== undefined) throw new Error(`not a 200: ${seen.wrong}`);
      await received(seen.all);
      return { rate: seen.measured / seconds, p50: seen.p50, p99: seen.p99, cpu, rss: peakRssOf(running.pid) };
    } finally {
      await driver.stop();
    }
  } finally {
    await running.stop();
  }
};

const inChild = async (run: Run, name: string): Promise<Sample> => {
  const running = startChild('http', name);
  const port = await running.told<number>();
  return measured(run, running, port, async events => {
    running.go();
    const got = await running.told<number>();
    if (got !== events) throw new Error(`the sink got ${got} of ${events} events`);
  });
};

/** A ceiling: takes the body, parses it, answers. */
export const bare: ChildMain<object> = async (_, tell, go) => {
  let events = 0;
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      events += (JSON.parse(Buffer.concat(parts).toString()) as unknown[]).length;
      response.writeHead(200, { 'Content-Length': 0 }).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  tell((server.address() as AddressInfo).port);
  await go();
  tell(events);
};

/** The flow as a library user writes it. */
export const library: ChildMain<object> = async (_, tell, go) => {
  const { run, httpSource, memoryChannel, nullSink } = await import('../src/index.ts');
  const flow = run(
    httpSource({ port: 0, listening: ({ port }) => tell(port) }),
    memoryChannel({ capacity: 100_000, transactionCapacity: 10_000 }),
    nullSink({ batchSize: 1000 }),
  );
  await go();
  await flow.stop();
  tell(flow.ledger.delivered);
};

export default {
  name: 'http',
  title: 'HTTP: posts of one event, keep-alive → http source → memory channel → null',
  definition:
    'Posts answered with 200 per second, after two seconds of warming up; every event was then found in the sink.',
  columns: [rate('posts/s'), column('p50', 'p50, ms', 3), column('p99', 'p99, ms', 3), peakRss, cpuSeconds],
  cases: ['1 connection', '64 connections'],
  baselines: ['real Flume 1.11', 'bare Node server'],
  contestants: [
    { name: 'bare Node server', run: run => inChild(run, 'bare') },
    {
      name: 'real Flume 1.11',
      missing: flumeMissing,
      run: async run => {
        const port = await freePort();
        const running = await flume({ conf: conf(port) });
        await running.ready;
        await listening(port, running.exited);
        return measured(run, running, port, events => taken(running.metrics, events));
      },
    },
    { name: 'millrace, library', run: run => inChild(run, 'library') },
    {
      name: 'millrace, agent',
      run: async run => {
        const port = await freePort();
        const running = await agent({ conf: conf(port), dir: run.dir });
        await listening(port, running.exited);
        return measured(run, running, port, events => taken(running.metrics, events));
      },
    },
  ],
} satisfies Workload;
