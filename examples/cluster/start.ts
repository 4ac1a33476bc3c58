/** A two-tier topology on one machine, see README.md: `npm run cluster`. */
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { heldBy, startAgent, type Agent } from './agents.ts';
import { useCluster, type Positions } from './brokers.ts';
import { balanceOf, writeLines } from './lines.ts';
import { look, settled, sum, table } from './table.ts';

const { values: options } = parseArgs({
  options: {
    brokers: { type: 'string' },
    edges: { type: 'string', default: '2' },
    collectors: { type: 'string', default: '3' },
    partitions: { type: 'string', default: '6' },
    rate: { type: 'string', default: '1000' },
    dir: { type: 'string' },
  },
});
const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'cluster-'));
mkdirSync(dir, { recursive: true });
// A name of its own, so that a cluster of yours is left as it was.
const topic = `millrace-example-${Date.now()}`;
const restartDelay = 2000;

const news: string[] = [];
const tell = (line: string) => {
  if (process.stdout.isTTY) news.push(line);
  else console.log(line);
};

/** What the group had committed when the brokers said that last. */
let committed: readonly number[] = [];
const ask = async (): Promise<Positions | undefined> => {
  const positions = await cluster.positions(topic, `${topic}-collectors`);
  if (positions !== undefined) committed = positions.map(of => of.committed);
  return positions;
};

/** How many lines may come twice because of what was killed so far. */
let mayRepeat = 0;
const killed = async (name: string, how: string, atMost: () => number | Promise<number>) => {
  tell(`${name} ${how}. It starts again in ${restartDelay / 1000} s.`);
  const lines = await atMost();
  mayRepeat += lines;
  tell(`${name}: at most ${lines} lines come twice.`);
};
/** What had not been committed then, and what has come since. */
const uncommitted = async (): Promise<number> => {
  const then = committed;
  for (;;) {
    const now = await ask();
    if (now !== undefined) return sum(now.map(({ end }, i) => end - (then[i] ?? 0)));
    await sleep(100);
  }
};

console.log(
  options.brokers === undefined
    ? 'Starting three brokers, and then the agents. The first time, Maven fetches 44 MB of jars.'
    : 'Starting the agents.',
);
const cluster = await useCluster(options.brokers?.split(','), async name => {
  void killed(name, 'was killed', uncommitted);
  await sleep(restartDelay);
});
await cluster.createTopic(topic, Number(options.partitions));
const start = async (kind: 'edge' | 'collector', count: string): Promise<Agent[]> => {
  const agents: Agent[] = [];
  for (let i = 1; i <= Number(count); i++) {
    const name = `${kind}-${i}`;
    const agent = await startAgent({
      name,
      system: { dir: join(dir, name), topic, brokers: cluster.brokers.join(',') },
      died: async how => {
        // What an edge has not noted as written is in its channel.
        await killed(name, how, kind === 'edge' ? () => heldBy(agent) : uncommitted);
        await sleep(restartDelay);
      },
    });
    agents.push(agent);
  }
  return agents;
};
const edges = await start('edge', options.edges);
const collectors = await start('collector', options.collectors);
const agents = [...edges, ...collectors];
const folders = (of: readonly Agent[], name: string) => of.map(agent => join(agent.dir, name));
const lines = writeLines(folders(edges, 'logs'), Number(options.rate));
const balance = () => balanceOf(edges.length, lines.written(), folders(collectors, 'files'));

let [stopping, impatient] = [false, false];
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    impatient = stopping;
    if (!stopping) tell('No more lines are written. It ends when all have arrived; once more, and it does not wait.');
    stopping = true;
    lines.stop();
  });

tell(`Lines go to ${join(dir, 'edge-*', 'logs')}, and come to ${join(dir, 'collector-*', 'files')}.`);
const hint = 'Kill what you like: kill -9 <pid>. Ctrl-C ends everything, and says whether all has arrived.';
if (!process.stdout.isTTY) console.log(hint);
for (let before = await look(agents, ask()); ;) {
  await sleep(1000);
  const now = await look(agents, ask());
  const shown = `${table(agents, cluster, before, now)}\n${edges.length * lines.written()} lines written`;
  // On a terminal, the same place again.
  console.log(process.stdout.isTTY ? ['\x1b[H\x1b[J', ...news.slice(-8), '', shown, '', hint].join('\n') : shown);
  before = now;
  if (impatient || (stopping && settled(now) && balance().lost === 0)) break;
}
await Promise.all(agents.map(agent => agent.stop()));
await cluster.stop(topic);

const { written, collected, lost, duplicates } = balance();
console.log(`
lines written   ${written}
lines collected ${collected}
lost            ${lost}
duplicates      ${duplicates}, of at most ${mayRepeat}`);
process.exit(lost === 0 ? 0 : 1);
