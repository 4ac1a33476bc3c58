import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { filter, map } from 'rxjs';
import { createSink, event, headers, intercept, memoryChannel, run, taildirSource } from 'millrace';

const dir = mkdtempSync(join(tmpdir(), 'first-flow-'));
writeFileSync(join(dir, 'app.log'), 'INFO started\nDEBUG noise\nERROR disk full\n');

const flow = run(
  taildirSource({ filegroups: { app: join(dir, '.*\\.log') }, positionFile: join(dir, 'positions.json') }),
  intercept(
    filter(e => !e.body.includes('DEBUG')), // ordinary RxJS operators, batch by batch
    map(e => event(e.body, headers({ level: e.body.toString().split(' ')[0]! }))),
  ),
  memoryChannel({ capacity: 10_000 }),
  // What it returns is awaited; if it throws, the batch is tried again; then the batch is acked.
  createSink(async events => {
    for (const { headers, body } of events) console.log(headers['level'], body.toString());
    if (flow.ledger.accepted === 3) void flow.stop();
  }),
);

process.once('SIGTERM', () => void flow.stop());
await flow.done; // drained, channel closed, positions written
console.log(flow.ledger.snapshot());
