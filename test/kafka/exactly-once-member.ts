/** A member of the group of `exactly-once.test.ts`, as a process that can be killed. */
import { filter, map } from 'rxjs';
import { event, headers } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { kafkaSink } from '../../src/sinks/kafka.ts';
import { kafkaSource } from '../../src/sources/kafka.ts';

export interface Orders {
  readonly bootstrapServers: readonly string[];
  readonly groupId: string;
  readonly from: string;
  readonly to: string;
}

export const batchSize = 100;
/** Of every seven blocks of records one is left out, which is several deliveries. */
export const isKept = (number: number): boolean => Math.floor(number / 250) % 7 !== 3;

const [, , orders] = process.argv;
if (orders?.startsWith('{') === true) {
  const { bootstrapServers, groupId, from, to } = JSON.parse(orders) as Orders;
  const flow = run(
    kafkaSource({
      bootstrapServers,
      groupId,
      topics: [from],
      batchSize,
      // Or the sink would follow it.
      setTopicHeader: false,
      exactlyOnce: true,
      commitInterval: 100,
      consumer: { 'auto.offset.reset': 'earliest', 'session.timeout.ms': '1500', 'heartbeat.interval.ms': '200' },
    }).pipe(
      intercept(events =>
        events.pipe(
          filter(({ body }) => isKept(Number(body))),
          map(({ headers: before, body }) => event(body, headers({ ...before, pid: String(process.pid) }))),
        ),
      ),
    ),
    kafkaSink({
      bootstrapServers,
      topic: to,
      partitionIdHeader: 'partition',
      exactlyOnce: true,
      headers: { pid: 'pid' },
      compression: 'gzip',
    }),
  );
  process.once('SIGTERM', () => void flow.stop().then(() => process.exit()));
}
