/**
 * Group commit: 64 keep-alive connections, each with one post of one event under way → HTTP source → file channel (a sync
 * per commit) → null. A post is answered when its event is on the disk, so that without group commit there would be a sync for each.
 *
 * What is posted and how it is measured: see http.ts. Syncs are the channel's own count, over the whole run; real Flume
 * has none.
 *
 * @module
 */
import { agent } from './agent.ts';
import { flume, flumeMissing, taken, type FlumeMetrics } from './flume.ts';
import { conf, measured } from './http.ts';
import { freePort, listening, type Running } from './processes.ts';
import { fileChannel } from './tail-file.ts';
import { column, cpuSeconds, peakRss, rate, type Run, type Sample, type Workload } from './workload.ts';

interface Server extends Running {
  readonly metrics: () => Promise<FlumeMetrics>;
}

const posted = async (run: Run, begin: (conf: string) => Promise<Server>): Promise<Sample> => {
  const port = await freePort();
  const running = await begin(conf(port, fileChannel(run.dir)));
  await listening(port, running.exited);
  let syncs = NaN;
  const sample = await measured({ ...run, case: '64' }, running, port, async events => {
    await taken(running.metrics, events);
    syncs = Number((await running.metrics())['CHANNEL.c1']?.['SyncCount']) / events;
  });
  return { ...sample, syncs };
};

export default {
  name: 'w2-http-group-commit',
  title: 'W2, group commit: 64 connections post one event each → http source → file channel (a sync per commit) → null',
  definition:
    'Posts answered with 200 per second, after two seconds of warming up; every event was then found in the sink. Syncs: the channel’s own count, per post.',
  columns: [
    rate('posts/s'),
    column('p50', 'p50, ms', 2),
    column('p99', 'p99, ms', 2),
    column('syncs', 'syncs per post', 3),
    peakRss,
    cpuSeconds,
  ],
  baselines: ['real Flume 1.11'],
  contestants: [
    {
      name: 'real Flume 1.11',
      missing: flumeMissing,
      run: run =>
        posted(run, async text => {
          const running = await flume({ conf: text });
          await running.ready;
          return running;
        }),
    },
    { name: 'millrace, agent', run: run => posted(run, text => agent({ conf: text, dir: run.dir })) },
  ],
} satisfies Workload;
