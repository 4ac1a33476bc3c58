/**
 * Partitions as keys, and as requests want them.
 *
 * @module
 */
import type { TopicPartition } from './client.ts';

/** No two have the same. */
export const nameOf = ({ topic, partition }: TopicPartition): string => `${topic}-${partition}`;

/** By their topic, as most requests want them. */
export const byTopic = <P extends { readonly topic: string }>(partitions: Iterable<P>): Map<string, P[]> => {
  const grouped = new Map<string, P[]>();
  for (const partition of partitions) {
    const of = grouped.get(partition.topic);
    if (of === undefined) grouped.set(partition.topic, [partition]);
    else of.push(partition);
  }
  return grouped;
};
