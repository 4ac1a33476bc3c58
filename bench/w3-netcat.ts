/**
 * W3: one TCP client writes 3 M lines of 180 bytes (newline included) → netcat without acks → memory channel (100 k
 * events, transactions of 10 k) → null.
 *
 * Rate: from the moment the connected client is told to write until the sink has committed the last line: Flume and our agent
 * are asked for the channel's EventTakeSuccessCount every 20 ms, library and bare loop count in their own process and
 * tell. A run that does not get every line fails. The client is a process of its own which writes one prebuilt buffer of
 * about 1 MB over and over; the bare loop shows how fast it is at least. CPU is the server's alone, over the same time.
 *
 * @module
 */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing, taken } from './flume.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { freePort, listening, startChild, type Running } from './processes.ts';
import { cpuSeconds, peakRss, rate, type Sample, type Workload } from './workload.ts';

const LINES = 3_000_000;
const LINE = 180;
const PER_WRITE = 6_000;

/** Real Flume and millrace read the same text. */
const conf = (port: number): string => `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = netcat
a1.sources.r1.bind = 127.0.0.1
a1.sources.r1.port = ${port}
a1.sources.r1.ack-every-event = false
a1.sources.r1.channels = c1
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000
a1.sinks.k1.type = null
a1.sinks.k1.batchSize = 1000
a1.sinks.k1.channel = c1
`;

/** Connects, waits, writes as fast as it is let. Says how many bytes came back, which is none unless something is lost. */
export const client: ChildMain<{ port: number; lines: number }> = async ({ port, lines }, tell, go) => {
  const buffer = Buffer.alloc(PER_WRITE * LINE, 'x');
  for (let i = 1; i <= PER_WRITE; i++) buffer[i * LINE - 1] = 10;
  const socket = connect(port, '127.0.0.1');
  let returned = 0;
  socket.on('data', chunk => (returned += chunk.length));
  await once(socket, 'connect');
  tell('connected');
  await go();
  for (let sent = 0; sent < lines; sent += PER_WRITE) if (!socket.write(buffer)) await once(socket, 'drain');
  await new Promise<void>(resolve => void socket.end(() => resolve()));
  tell({ returned });
};

/** A server and how to learn that its sink has everything. */
interface Server {
  readonly running: Running;
  readonly port: number;
  readonly done: () => Promise<unknown>;
}

const measured = async ({ running, port, done }: Server): Promise<Sample> => {
  try {
    const writer = startChild('w3-netcat', 'client', { port, lines: LINES });
    try {
      await writer.told();
      const [began, cpuBefore] = [performance.now(), cpuOf(running.pid)];
      writer.go();
      await done();
      const seconds = (performance.now() - began) / 1000;
      const sample = { rate: LINES / seconds, cpu: cpuOf(running.pid) - cpuBefore, rss: peakRssOf(running.pid) };
      const { returned } = await writer.told<{ returned: number }>();
      if (returned > 0) throw new Error(`the server wrote ${returned} bytes back: lines were refused`);
      return sample;
    } finally {
      await writer.stop();
    }
  } finally {
    await running.stop();
  }
};

const inChild = async (name: string): Promise<Sample> => {
  const running = startChild('w3-netcat', name, { lines: LINES });
  const port = await running.told<number>();
  return measured({ running, port, done: () => running.told(60_000) });
};

/** A ceiling: counts newlines and keeps nothing. */
export const bare: ChildMain<{ lines: number }> = async ({ lines }, tell) => {
  let seen = 0;
  const server = createServer(socket => {
    socket.on('data', chunk => {
      for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) seen++;
      if (seen === lines) tell('all');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  tell((server.address() as AddressInfo).port);
};

/** The flow as a library user writes it. */
export const library: ChildMain<{ lines: number }> = async ({ lines }, tell) => {
  const { run, netcatSource, memoryChannel, nullSink } = await import('../src/index.ts');
  const flow = run(
    netcatSource({ port: 0, ackEveryEvent: false, listening: ({ port }) => tell(port) }),
    memoryChannel({ capacity: 100_000, transactionCapacity: 10_000 }),
    nullSink({ batchSize: 1000 }),
  );
  while (flow.ledger.delivered < lines) await sleep(5);
  tell('all');
};

export default {
  name: 'w3-netcat',
  title: 'W3: one TCP client, lines of 180 bytes → netcat (no acks) → memory channel → null',
  definition: 'Lines per second from the first write of the client until the sink has committed the last line.',
  columns: [rate('lines/s'), peakRss, cpuSeconds],
  baselines: ['real Flume 1.11', 'bare Node server'],
  contestants: [
    { name: 'bare Node server', run: () => inChild('bare') },
    {
      name: 'real Flume 1.11',
      missing: flumeMissing,
      run: async () => {
        const port = await freePort();
        const running = await flume({ conf: conf(port) });
        await running.ready;
        await listening(port, running.exited);
        return measured({ running, port, done: () => taken(running.metrics, LINES) });
      },
    },
    { name: 'millrace, library', run: () => inChild('library') },
    {
      name: 'millrace, agent',
      run: async ({ dir }) => {
        const port = await freePort();
        const running = await agent({ conf: conf(port), dir });
        await listening(port, running.exited);
        return measured({ running, port, done: () => taken(running.metrics, LINES) });
      },
    },
  ],
} satisfies Workload;
