/** `write` puts a thousand events into a file channel that compresses with zstd; `read` takes them out. Prints how many. */
import { setTimeout as wait } from 'node:timers/promises';
import { fileChannel, mapBatch, seqSource } from '../../src/index.ts';

const [dir, what] = process.argv.slice(2) as [string, string];
const channel = fileChannel.create({ dir, compression: 'zstd', minimumRequiredSpace: 0 });
if (what === 'write') {
  // What does not become smaller is not compressed.
  const padded = mapBatch(({ events }) =>
    events.map(({ headers, body }) => ({ headers, body: Buffer.from(body.toString().padStart(200)) })),
  );
  seqSource({ totalEvents: 1000 }).pipe(padded).subscribe(channel.input());
  while (channel.depth.events < 1000) await wait(5);
  console.log(channel.depth.events);
} else {
  const bodies = new Set<string>();
  channel.output().subscribe(delivery => {
    for (const { body } of delivery.events) bodies.add(body.toString());
    delivery.ack();
  });
  while (bodies.size < 1000 || channel.depth.events > 0) await wait(5);
  console.log(bodies.size);
}
await channel.close();
