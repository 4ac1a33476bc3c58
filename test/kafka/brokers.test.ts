import { Kafka as Client, logLevel } from 'kafkajs';
import { expect, it } from 'vitest';
import { describeKafka, kafkaVersions, startKafka } from './brokers.ts';

describeKafka('real brokers', () => {
  it.each(kafkaVersions)('%s: a topic is made, written, read and deleted', async version => {
    const kafka = await startKafka({ version });
    try {
      await kafka.createTopic('lines', { partitions: 2 });
      const producer = new Client({ brokers: kafka.bootstrap, logLevel: logLevel.NOTHING }).producer();
      await producer.connect();
      await producer.send({
        topic: 'lines',
        messages: [
          { partition: 1, key: 'k', value: 'one', headers: { h: 'v' } },
          { partition: 1, value: null },
        ],
      });
      await producer.disconnect();
      expect(await kafka.ends('lines')).toEqual([0, 2]);
      expect(await kafka.read('lines')).toEqual([
        [],
        [
          { offset: 0, key: Buffer.from('k'), value: Buffer.from('one'), headers: { h: Buffer.from('v') } },
          { offset: 1, key: null, value: null, headers: {} },
        ],
      ]);
      await kafka.deleteTopic('lines');
    } finally {
      await kafka.stop();
    }
  });
});
