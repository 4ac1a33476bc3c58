/**
 * What members of a group tell each other by way of the broker: ConsumerProtocolSubscription and ConsumerProtocolAssignment,
 * version 0, https://github.com/apache/kafka/tree/trunk/clients/src/main/resources/common/message
 *
 * @module
 */
import type { TopicPartition } from '../client.ts';
import { decodeTopics, Decoder, encodeTopics, Encoder } from './coding.ts';

const version = 0;
const nothing = Buffer.alloc(0);

export const encodeSubscription = (topics: readonly string[]): Buffer => {
  const to = new Encoder().int16(version);
  return to.array(topics, topic => to.string(topic)).bytesOf(nothing).bytes;
};

/** The topics that a member wants. Newer versions have more behind them. */
export const decodeSubscription = (bytes: Buffer | null): string[] => {
  if (bytes === null || bytes.length === 0) return [];
  const of = new Decoder(bytes);
  of.int16();
  return of.array(() => of.string());
};

export const encodeAssignment = (partitions: readonly TopicPartition[]): Buffer => {
  const to = new Encoder().int16(version);
  return encodeTopics(to, partitions, ({ partition }) => to.int32(partition)).bytesOf(nothing).bytes;
};

export const decodeAssignment = (bytes: Buffer | null): TopicPartition[] => {
  if (bytes === null || bytes.length === 0) return [];
  const of = new Decoder(bytes);
  of.int16();
  return decodeTopics(of, at => at);
};
