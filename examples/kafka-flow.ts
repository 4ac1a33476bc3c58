import { createSink, event, fromAsyncIterable, headers, run } from 'millrace';
import { kafkaSink, kafkaSource } from 'millrace/kafka';
import { memoryKafka } from 'millrace/testing';

// A cluster in memory, for tests and for this example. Without `connect` it is kafkajs, and real brokers.
const { connect } = memoryKafka({ topics: { orders: 3 } });
const kafka = { bootstrapServers: ['localhost:9092'], connect };

async function* orders() {
  for (const customer of ['ann', 'bob', 'ann']) yield event(`for ${customer}`, headers({ key: customer }));
}

// Acked when all replicas have it. Events of one key stay in order.
await run(fromAsyncIterable(orders()), kafkaSink({ ...kafka, topic: 'orders' })).done;

// One of a group. An offset is committed when everything up to there is acked.
const read: string[] = [];
const flow = run(
  kafkaSource({ ...kafka, topics: ['orders'], groupId: 'billing', consumer: { 'auto.offset.reset': 'earliest' } }),
  createSink(events => {
    read.push(...events.map(({ headers, body }) => `${headers['topic']}: ${body.toString()}`));
    if (read.length === 3) void flow.stop();
  }),
);
await flow.done;
console.log(read.sort().join(', ')); // orders: for ann, orders: for ann, orders: for bob
