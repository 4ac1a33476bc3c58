/**
 * How the leader of a group shares out partitions. Both go by the names and the rules of Java's, so that Java's consumers and ours
 * can be in one group: https://kafka.apache.org/documentation/#consumerconfigs_partition.assignment.strategy
 *
 * @module
 */
import type { TopicPartition } from './client.ts';

export interface Member {
  readonly id: string;
  readonly topics: readonly string[];
}

/** Topic and how many partitions it has. */
export type Counts = ReadonlyMap<string, number>;
export type Assignor = (members: readonly Member[], counts: Counts) => Map<string, TopicPartition[]>;

const byId = (one: Member, other: Member) => (one.id < other.id ? -1 : 1);

/** All partitions in turn to all members; best with many topics of few partitions. */
const roundrobin: Assignor = (members, counts) => {
  const sorted = [...members].sort(byId);
  const given = new Map<string, TopicPartition[]>(sorted.map(({ id }) => [id, []]));
  let turn = 0;
  for (const topic of [...counts.keys()].sort()) {
    if (!sorted.some(({ topics }) => topics.includes(topic))) continue;
    for (let partition = 0; partition < (counts.get(topic) ?? 0); partition++) {
      while (sorted[turn % sorted.length]?.topics.includes(topic) !== true) turn++;
      const member = sorted[turn++ % sorted.length];
      if (member !== undefined) given.get(member.id)?.push({ topic, partition });
    }
  }
  return given;
};

/** Of each topic a run of partitions to each member; Java's default. */
const range: Assignor = (members, counts) => {
  const given = new Map<string, TopicPartition[]>(members.map(({ id }) => [id, []]));
  for (const [topic, count] of counts) {
    const takers = members.filter(({ topics }) => topics.includes(topic)).sort(byId);
    let partition = 0;
    for (const [index, { id }] of takers.entries()) {
      const share = Math.floor(count / takers.length) + (index < count % takers.length ? 1 : 0);
      for (let taken = 0; taken < share; taken++) given.get(id)?.push({ topic, partition: partition++ });
    }
  }
  return given;
};

/** By name, the one we like best first. */
export const assignors: Readonly<Record<string, Assignor>> = { roundrobin, range };
