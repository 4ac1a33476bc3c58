import { afterAll, beforeAll } from 'vitest';
import { quietLog } from '../../src/core/scope.ts';
import type { ConnectionSettings, KafkaConnector } from '../../src/protocols/kafka/client.ts';
import { Cluster } from '../../src/protocols/kafka/brokers/cluster.ts';
import { leaveGroup } from '../../src/protocols/kafka/brokers/requests.ts';
import { loadKafkajs } from '../../src/protocols/kafka/kafkajs/package.ts';
import { createWires } from '../../src/protocols/kafka/kafkajs/wire.ts';
import { portLaws, realTime } from '../protocols/kafka/port-laws.ts';
import { describeKafka, kafkaVersions, startKafka, type Kafka } from './brokers.ts';
import { proxy, type Proxy } from './proxy.ts';

/** Everything that the port promises, of one client, on real brokers of all versions. */
export const lawsOnBrokers = (name: string, connect: KafkaConnector): void => {
  for (const version of kafkaVersions)
    describeKafka(`${name} on Kafka ${version}`, () => {
      let kafka: Kafka;
      const proxies: Proxy[] = [];
      const settings = (): ConnectionSettings => ({ brokers: kafka.bootstrap, log: quietLog });

      beforeAll(async () => {
        kafka = await startKafka({
          version,
          advertise: async to => {
            const between = await proxy({ to });
            proxies.push(between);
            return between.port;
          },
        });
      });
      afterAll(async () => {
        await kafka.stop();
        for (const between of proxies) await between.close();
      });

      portLaws(name, {
        time: realTime,
        connect: () => connect(settings()),
        createTopic: (topic, partitions) => kafka.createTopic(topic, { partitions }),
        consumer: { sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 8000, maxWait: 100 },
        addPartitions: async (topic, more) => {
          const count = (await kafka.ends(topic)).length + more;
          await kafka.admin(admin => admin.createPartitions({ topicPartitions: [{ topic, count }] }));
        },
        deleteRecords: ({ topic, partition }, before) =>
          kafka.admin(async admin => {
            // It has to have heard of the topic.
            await admin.fetchTopicOffsets(topic);
            await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] });
          }),
        down: async () => {
          for (const node of kafka.nodes) await node.kill();
        },
        up: async () => {
          for (const node of kafka.nodes) await node.start();
        },
        loseAnswer: () => {
          for (const between of proxies) void between.cutAfter(0, 'down');
        },
        expel: async groupId => {
          const { groups } = await kafka.admin(admin => admin.describeGroups([groupId]));
          const cluster = new Cluster(createWires(loadKafkajs(), settings()), settings(), 5000);
          const coordinator = await cluster.coordinator(groupId);
          for (const { memberId } of groups.flatMap(({ members }) => members))
            await coordinator.ask(leaveGroup(groupId, memberId));
          cluster.close();
        },
      });
    });
};
