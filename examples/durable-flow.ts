import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSink, event, fileChannel, fromAsyncIterable, run, type Sink } from 'millrace';

const dir = mkdtempSync(join(tmpdir(), 'durable-flow-'));

async function* orders(from: number, to: number) {
  for (let n = from; n <= to; n++) yield event(`order ${n}`);
}

// An order counts as taken when the disk has it; orders that wait together are made safe together.
const take = (from: number, to: number, warehouse: Sink) =>
  run(fromAsyncIterable(orders(from, to)), fileChannel({ dir }), warehouse);

const closed = createSink(() => Promise.reject(new Error('closed today')), { retry: { attempts: 1 } });
const monday = take(1, 3, closed);
while (monday.metrics.find('CHANNEL', 'file')?.['EventPutSuccessCount'] !== 3) await new Promise(setImmediate);
await monday.stop(); // what it has taken stays in the channel, here as after a crash
console.log('monday:', monday.ledger.kept); // monday: 3

const delivered: string[] = [];
const open = createSink(events => void delivered.push(...events.map(({ body }) => body.toString())));
await take(4, 5, open).done;
console.log(delivered.join(', ')); // order 1, order 2, order 3, order 4, order 5
