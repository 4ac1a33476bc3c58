/**
 * Asking brokers for rights. kafkajs does not know the versions of these requests that have them, so they are coded here; Kafka
 * has them since 2.3.
 *
 * @module
 */
import type { ConsumerOptions, Right, TopicAccess } from '../client.ts';
import { accessOf, rightsOf } from '../rights.ts';
import type { Node } from './cluster.ts';
import { refusedBy } from './errors.ts';
import type { Decoder, Encoder, Package } from './package.ts';

const strings = (encoder: Encoder, all: readonly string[]): Encoder =>
  all.reduce((to, text) => to.writeString(text), encoder.writeInt32(all.length));

/** https://kafka.apache.org/protocol: Metadata, version 8. */
export const describeTopics = async (
  kafkajs: Package,
  node: Node,
  wanted: ConsumerOptions['topics'],
): Promise<readonly TopicAccess[]> => {
  const encode = (): Promise<Encoder> => {
    const encoder = new kafkajs.Encoder();
    const topics = wanted instanceof RegExp ? encoder.writeInt32(-1) : strings(encoder, wanted);
    const [makeThem, rightsInCluster, rightsInTopics] = [0, 0, 1];
    return Promise.resolve(topics.writeInt8(makeThem).writeInt8(rightsInCluster).writeInt8(rightsInTopics));
  };
  const ints = (decoder: Decoder) => decoder.readArray(ids => ids.readInt32());
  const decode = (raw: Buffer) => {
    const decoder = new kafkajs.Decoder(raw);
    decoder.readInt32();
    decoder.readArray(broker => [broker.readInt32(), broker.readString(), broker.readInt32(), broker.readString()]);
    decoder.readString();
    decoder.readInt32();
    return Promise.resolve(
      decoder.readArray(topic => ({
        refusal: topic.readInt16(),
        topic: topic.readString(),
        internal: topic.readInt8() !== 0,
        partitions: topic.readArray(of => [
          [of.readInt16(), of.readInt32(), of.readInt32(), of.readInt32()],
          [ints(of), ints(of), ints(of)],
        ]).length,
        bits: topic.readInt32(),
      })),
    );
  };
  const args = { topics: [], allowAutoTopicCreation: false };
  const answer = await node.ask('Metadata', args, { apiVersion: 8, encode, decode });
  return answer
    .filter(({ topic, internal }) => !(wanted instanceof RegExp) || (!internal && wanted.test(topic)))
    .map(({ refusal, topic, partitions, bits }) =>
      accessOf(topic, refusal, partitions, bits, () => refusedBy(kafkajs, refusal, `looking for topic ${topic}`)),
    );
};

/** https://kafka.apache.org/protocol: DescribeGroups, version 3. To be asked of the group's coordinator. */
export const describeGroup = async (kafkajs: Package, node: Node, groupId: string): Promise<ReadonlySet<Right>> => {
  const encode = () => Promise.resolve(strings(new kafkajs.Encoder(), [groupId]).writeInt8(1));
  const decode = (raw: Buffer) => {
    const decoder = new kafkajs.Decoder(raw);
    decoder.readInt32();
    return Promise.resolve(
      decoder.readArray(group => {
        const refusal = group.readInt16();
        // Its name, its state, the protocol, and what that says.
        for (let strings = 4; strings > 0; strings--) group.readString();
        group.readArray(member => [
          [member.readString(), member.readString(), member.readString()],
          [member.readBytes(), member.readBytes()],
        ]);
        return { refusal, bits: group.readInt32() };
      }),
    );
  };
  const [group] = await node.ask('DescribeGroups', { groupIds: [groupId] }, { apiVersion: 3, encode, decode });
  const { refusal = 0, bits = 0 } = group ?? {};
  if (refusal !== 0) throw refusedBy(kafkajs, refusal, `looking for group ${groupId}`);
  return rightsOf(bits);
};
