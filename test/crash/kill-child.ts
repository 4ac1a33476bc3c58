/** A process to be killed: what the argument says, until `stop` comes on its standard input. */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Observable } from 'rxjs';
import type { Delivery } from '../../src/core/delivery.ts';
import { event } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { fileChannel } from '../../src/operators/channels/file.ts';
import { mapBatch } from '../../src/operators/map-batch.ts';
import { fileRollSink } from '../../src/sinks/file-roll.ts';
import { httpSource } from '../../src/sources/http.ts';
import { netcatSource } from '../../src/sources/netcat.ts';
import { taildirSource } from '../../src/sources/taildir.ts';

export interface Orders {
  readonly source: 'tail' | 'netcat' | 'http';
  /** Has `in` and `out`. */
  readonly directory: string;
  readonly exactlyOnce: boolean;
  readonly life: number;
}

const { source, directory, exactlyOnce, life } = JSON.parse(process.argv[2]!) as Orders;
const say = (what: string) => process.stdout.write(`${what}\n`);
const listening = ({ port }: { readonly port: number }) => say(`ready ${port}`);

const opened: Observable<Delivery> = {
  tail: () =>
    taildirSource({
      filegroups: { all: join(directory, 'in', '.*') },
      positionFile: join(directory, 'positions.json'),
      pollInterval: 50,
      batchSize: 100,
    }),
  netcat: () => netcatSource({ port: 0, listening }),
  http: () => httpSource({ port: 0, listening }),
}[source]();

let count = 0;
const flow = run(
  opened,
  // What was put into the channel once has a stamp that nothing else has, also if the same line is put again.
  mapBatch(({ events }) => events.map(({ body, headers }) => event(`${body.toString()} ${life}.${count++}`, headers))),
  fileChannel({
    dir: join(directory, 'channel'),
    maxFileSize: 128 * 1024,
    minimumRequiredSpace: 0,
    checkpointInterval: 50,
    capacity: 20_000,
  }),
  fileRollSink({ directory: join(directory, 'out'), rollInterval: 0, rollSize: 200_000, exactlyOnce }),
);
flow.done.catch((cause: unknown) => {
  say(`broken ${String(cause)}`);
  process.exit(1);
});
if (source === 'tail') say('ready 0');

const known = setInterval(() => {
  const { DuplicateCount = 0 } = flow.metrics.snapshot()['SINK.file_roll'] as Record<string, number>;
  if (DuplicateCount === 0) return;
  say('known');
  clearInterval(known);
}, 5);

createInterface({ input: process.stdin })
  .on('line', () => void flow.stop().then(() => process.exit(0)))
  .on('close', () => process.exit(2));
