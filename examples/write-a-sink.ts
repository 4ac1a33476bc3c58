import { createSink, run, seqSource, MillraceError } from 'millrace';

/** Stands for a database. */
const rows: string[] = [];

const database = createSink(async events => {
  const bodies = events.map(event => event.body.toString());
  // Permanent: this event can never be stored. Anything else that is thrown is tried again.
  if (bodies.includes('13')) throw new MillraceError('MR_BAD_INPUT', 'thirteen is not allowed here');
  rows.push(...bodies);
});

await run(seqSource({ totalEvents: 20, batchSize: 10, redelivery: { onReject: 'drop' } }), database).done;
console.log(rows.length); // 19
