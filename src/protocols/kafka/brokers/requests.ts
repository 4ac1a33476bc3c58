/**
 * The requests that a client needs, in versions that all brokers from 2.4 to 4.x speak, and how their answers are read. Coded by
 * https://kafka.apache.org/protocol
 *
 * @module
 */
import type { ConsumerOptions, Position, TopicPartition } from '../client.ts';
import type { Aborted } from '../record-batch.ts';
import { decodeTopics, Decoder, encodeTopics, Encoder } from './coding.ts';
import type { Answered, Request } from './wire.ts';

/** What is answered of partitions, flat. */
export interface PartitionAnswer extends TopicPartition {
  readonly errorCode: number;
}

/** An answer that has nothing to tell but a refusal, or 0. */
export interface Verdict extends Answered {
  readonly errorCode: number;
}

/** An answer, with all the places that may have a refusal. */
export interface Refusable extends Answered {
  readonly errorCode?: number;
  readonly partitions?: readonly PartitionAnswer[];
}

/** The first refusal, if there is one, and of which partition it is. */
export const refusalIn = ({ errorCode = 0, partitions = [] }: Refusable) => {
  if (errorCode !== 0) return { errorCode, where: '' };
  const of = partitions.find(one => one.errorCode !== 0);
  return of && { errorCode: of.errorCode, where: `, topic ${of.topic}, partition ${of.partition}` };
};

/** Who writes: brokers tell batches that come twice by it. */
export interface ProducerId {
  readonly id: bigint;
  readonly epoch: number;
}

const request = <Answer extends Answered>(
  name: string,
  key: number,
  version: number,
  body: Encoder,
  decode: (of: Decoder) => Answer,
  more: Pick<Request<Answer>, 'patience' | 'silent'> = {},
): Request<Answer> => ({
  name,
  key,
  version,
  body: body.bytes,
  decode: answer => decode(new Decoder(answer)),
  ...more,
});

const verdict = (of: Decoder): Verdict => ({ throttle: of.int32(), errorCode: of.int16() });
const verdicts = (of: Decoder): Answered & { readonly partitions: readonly PartitionAnswer[] } => ({
  throttle: of.int32(),
  partitions: decodeTopics(of, at => ({ ...at, errorCode: of.int16() })),
});

// ------------------------------------------------------------------------------------------------------------ clusters

export interface Metadata extends Answered {
  readonly brokers: readonly { readonly id: number; readonly host: string; readonly port: number }[];
  readonly topics: readonly {
    readonly errorCode: number;
    readonly topic: string;
    readonly internal: boolean;
    /** -1: there is none. */
    readonly partitions: readonly { readonly partition: number; readonly leader: number }[];
    /** Bits. */
    readonly rights: number;
  }[];
}

export interface MetadataOptions {
  /** Brokers that make topics make these. */
  readonly make: boolean;
  /** Says what may be done with them. */
  readonly rights: boolean;
}

/** Of all topics, if they are not named. */
export const metadata = (
  named: Exclude<ConsumerOptions['topics'], RegExp> | undefined,
  { make, rights }: MetadataOptions,
): Request<Metadata> => {
  const to = new Encoder();
  if (named === undefined) to.int32(-1);
  else to.array(named, topic => to.string(topic));
  const rightsInCluster = false;
  to.boolean(make).boolean(rightsInCluster).boolean(rights);
  return request('Metadata', 3, 8, to, of => {
    const throttle = of.int32();
    const brokers = of.array(() => {
      const broker = { id: of.int32(), host: of.string(), port: of.int32() };
      of.string(); // Its rack.
      return broker;
    });
    of.string(); // The id of the cluster, and of who controls it.
    of.int32();
    const ids = () => of.array(() => of.int32());
    const found = of.array(() => ({
      errorCode: of.int16(),
      topic: of.string(),
      internal: of.boolean(),
      partitions: of.array(() => {
        of.int16(); // As good as no leader.
        const partition = { partition: of.int32(), leader: of.int32() };
        of.int32(); // Its epoch, and then the replicas, those in sync and those that are away.
        for (let lists = 3; lists > 0; lists--) ids();
        return partition;
      }),
      rights: of.int32(),
    }));
    return { throttle, brokers, topics: found };
  });
};

export interface Found extends Verdict {
  readonly id: number;
  readonly host: string;
  readonly port: number;
}

/** Who looks after a group, or after the transactions of an id. */
export const findCoordinator = (id: string, of: 'group' | 'transactions'): Request<Found> =>
  request('FindCoordinator', 10, 2, new Encoder().string(id).int8(of === 'group' ? 0 : 1), answer => {
    const said = verdict(answer);
    answer.string(); // In words.
    return { ...said, id: answer.int32(), host: answer.string(), port: answer.int32() };
  });

export const describeGroup = (groupId: string): Request<Verdict & { readonly rights: number }> => {
  const to = new Encoder();
  to.array([groupId], id => to.string(id)).boolean(true);
  return request('DescribeGroups', 15, 3, to, of => {
    const throttle = of.int32();
    const [group] = of.array(() => {
      const errorCode = of.int16();
      // Its name, its state, the protocol, and what that says.
      for (let strings = 4; strings > 0; strings--) of.string();
      of.array(() => [of.string(), of.string(), of.string(), of.bytes(), of.bytes()]);
      return { errorCode, rights: of.int32() };
    });
    return { throttle, ...(group ?? { errorCode: 0, rights: 0 }) };
  });
};

// ------------------------------------------------------------------------------------------------------------- records

export interface ProduceFields {
  /** -1: all. */
  readonly acks: number;
  /** In ms. */
  readonly timeout: number;
  readonly transactionalId: string | null;
}

export interface Produced extends Answered {
  readonly partitions: readonly (PartitionAnswer & { readonly offset: number })[];
}

export const produce = (
  { topic, partition }: TopicPartition,
  batch: Buffer,
  { acks, timeout, transactionalId }: ProduceFields,
): Request<Produced> => {
  const to = new Encoder(batch.length + 1024).string(transactionalId).int16(acks).int32(timeout);
  to.int32(1).string(topic).int32(1).int32(partition).bytesOf(batch);
  if (acks === 0) return request('Produce', 0, 7, to, () => ({ throttle: 0, partitions: [] }), { silent: true });
  return request('Produce', 0, 7, to, of => {
    const partitions = decodeTopics(of, at => {
      const written = { ...at, errorCode: of.int16(), offset: Number(of.int64()) };
      of.int64(); // When it was appended, and where the partition begins.
      of.int64();
      return written;
    });
    return { partitions, throttle: of.int32() };
  });
};

export interface FetchFields {
  readonly maxWait: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly maxBytesPerPartition: number;
  readonly readCommitted: boolean;
}

export interface FetchedPartition extends PartitionAnswer {
  readonly aborted: readonly Aborted[];
  /** Batches of records; the last may be cut off. */
  readonly bytes: Buffer | null;
}

/** `next`: where to begin. */
export const fetch = (
  partitions: Iterable<TopicPartition & { readonly next: number }>,
  { maxWait, minBytes, maxBytes, maxBytesPerPartition, readCommitted }: FetchFields,
): Request<Verdict & { readonly partitions: readonly FetchedPartition[] }> => {
  const [consumer, session, noSession, leaderEpoch, logStart] = [-1, 0, -1, -1, -1];
  const to = new Encoder(1024).int32(consumer).int32(maxWait).int32(minBytes).int32(maxBytes);
  to.boolean(readCommitted).int32(session).int32(noSession);
  encodeTopics(to, partitions, ({ partition, next }) =>
    to.int32(partition).int32(leaderEpoch).int64(next).int64(logStart).int32(maxBytesPerPartition),
  );
  to.int32(0).string('');
  const decode = (of: Decoder) => {
    const said = verdict(of);
    of.int32(); // The session.
    const found = decodeTopics(of, at => {
      const errorCode = of.int16();
      of.skip(24); // High watermark, last stable offset, first offset.
      const aborted = of.array(() => ({ producerId: of.int64(), firstOffset: Number(of.int64()) }));
      of.int32(); // The replica that we should rather ask.
      return { ...at, errorCode, aborted, bytes: of.bytes() };
    });
    return { ...said, partitions: found };
  };
  return request('Fetch', 1, 11, to, decode, { patience: maxWait + 1000 });
};

export const earliest = -2;
export const latest = -1;

export const listOffsets = (
  partitions: Iterable<TopicPartition>,
  which: typeof earliest | typeof latest,
  readCommitted: boolean,
): Request<Answered & { readonly partitions: readonly (PartitionAnswer & { readonly offset: number })[] }> => {
  const consumer = -1;
  const to = new Encoder().int32(consumer).boolean(readCommitted);
  encodeTopics(to, partitions, ({ partition }) => to.int32(partition).int64(which));
  return request('ListOffsets', 2, 3, to, of => ({
    throttle: of.int32(),
    partitions: decodeTopics(of, at => {
      const errorCode = of.int16();
      of.int64(); // Its time.
      return { ...at, errorCode, offset: Number(of.int64()) };
    }),
  }));
};

// -------------------------------------------------------------------------------------------------------------- groups

export interface Joined extends Verdict {
  readonly generation: number;
  readonly protocol: string;
  readonly leader: string;
  readonly memberId: string;
  readonly members: readonly { readonly id: string; readonly subscription: Buffer | null }[];
}

export interface JoinFields {
  readonly groupId: string;
  readonly memberId: string;
  /** In ms. */
  readonly sessionTimeout: number;
  readonly rebalanceTimeout: number;
  /** Names of assignors. */
  readonly protocols: readonly string[];
  readonly subscription: Buffer;
}

export const joinGroup = (fields: JoinFields): Request<Joined> => {
  const { groupId, memberId, sessionTimeout, rebalanceTimeout, protocols, subscription } = fields;
  const to = new Encoder().string(groupId).int32(sessionTimeout).int32(rebalanceTimeout).string(memberId).string(null);
  to.string('consumer').array(protocols, name => to.string(name).bytesOf(subscription));
  const decode = (of: Decoder) => ({
    ...verdict(of),
    generation: of.int32(),
    protocol: of.string(),
    leader: of.string(),
    memberId: of.string(),
    members: of.array(() => {
      const id = of.string();
      of.string(); // The name of a static member.
      return { id, subscription: of.bytes() };
    }),
  });
  return request('JoinGroup', 11, 5, to, decode, { patience: rebalanceTimeout + 5000 });
};

/** One of the members that joined. */
export interface Member {
  readonly groupId: string;
  readonly generation: number;
  readonly memberId: string;
}

const member = ({ groupId, generation, memberId }: Member) =>
  new Encoder().string(groupId).int32(generation).string(memberId);

/** `assignments`: of all members, by the leader. */
export const syncGroup = (
  of: Member,
  assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[],
): Request<Verdict & { readonly assignment: Buffer | null }> => {
  const to = member(of).string(null);
  to.array(assignments, ({ memberId, assignment }) => to.string(memberId).bytesOf(assignment));
  return request('SyncGroup', 14, 3, to, answer => ({ ...verdict(answer), assignment: answer.bytes() }));
};

export const heartbeat = (of: Member): Request<Verdict> =>
  request('Heartbeat', 12, 3, member(of).string(null), verdict);

export const leaveGroup = (groupId: string, memberId: string): Request<Verdict> => {
  const to = new Encoder().string(groupId);
  to.array([memberId], id => to.string(id).string(null));
  return request('LeaveGroup', 13, 3, to, verdict);
};

export const offsetCommit = (of: Member, positions: readonly Position[], note: string | undefined) => {
  const to = member(of);
  encodeTopics(to, positions, ({ partition, offset }) =>
    to
      .int32(partition)
      .int64(offset)
      .string(note ?? null),
  );
  return request('OffsetCommit', 8, 5, to, verdicts);
};

export interface Committed extends Verdict {
  /** -1: it never committed there. */
  readonly partitions: readonly (PartitionAnswer & { readonly offset: number })[];
}

export const offsetFetch = (groupId: string, partitions: Iterable<TopicPartition>): Request<Committed> => {
  const to = new Encoder().string(groupId);
  encodeTopics(to, partitions, ({ partition }) => to.int32(partition));
  return request('OffsetFetch', 9, 4, to, of => ({
    throttle: of.int32(),
    partitions: decodeTopics(of, at => {
      const offset = Number(of.int64());
      of.string(); // What was noted with it.
      return { ...at, offset, errorCode: of.int16() };
    }),
    errorCode: of.int16(),
  }));
};

/** Version 7, from Kafka 2.5 on: the first that can wait for transactions. Its headers end with tags, of which there are none. */
export const stableOffsetFetch = (groupId: string, { topic, partition }: TopicPartition): Request<Committed> => {
  const to = new Encoder().int8(0).compactString(groupId).unsignedVarint(2).compactString(topic);
  const requireStable = true;
  to.unsignedVarint(2).int32(partition).int8(0).boolean(requireStable).int8(0);
  return request('OffsetFetch', 9, 7, to, of => {
    of.int8();
    const throttle = of.int32();
    const partitions: Committed['partitions'][number][] = [];
    for (let names = of.unsignedVarint() - 1; names > 0; names--) {
      of.skip(of.unsignedVarint() - 1);
      for (let numbers = of.unsignedVarint() - 1; numbers > 0; numbers--) {
        of.int32();
        const offset = Number(of.int64());
        of.int32(); // The epoch of its leader.
        of.skip(of.unsignedVarint() - 1); // What was noted with it.
        partitions.push({ topic, partition, offset, errorCode: of.int16() });
        of.int8();
      }
      of.int8();
    }
    return { throttle, partitions, errorCode: of.int16() };
  });
};

// -------------------------------------------------------------------------------------------------------- transactions

/** Without an id, for a producer that has no transactions. `timeout`: in ms, of a transaction. */
export const initProducerId = (transactionalId: string | null, timeout: number): Request<Verdict & ProducerId> =>
  request('InitProducerId', 22, 1, new Encoder().string(transactionalId).int32(timeout), of => ({
    ...verdict(of),
    id: of.int64(),
    epoch: of.int16(),
  }));

/** Who has a transaction. */
export interface Transactor extends ProducerId {
  readonly transactionalId: string;
}

export const addPartitions = ({ transactionalId, id, epoch }: Transactor, partitions: Iterable<TopicPartition>) => {
  const to = new Encoder().string(transactionalId).int64(id).int16(epoch);
  encodeTopics(to, partitions, ({ partition }) => to.int32(partition));
  return request('AddPartitionsToTxn', 24, 1, to, verdicts);
};

export const addOffsets = ({ transactionalId, id, epoch }: Transactor, groupId: string): Request<Verdict> =>
  request(
    'AddOffsetsToTxn',
    25,
    1,
    new Encoder().string(transactionalId).int64(id).int16(epoch).string(groupId),
    verdict,
  );

export const transactedOffset = (by: Transactor, groupId: string, at: Position) => {
  const to = new Encoder().string(by.transactionalId).string(groupId).int64(by.id).int16(by.epoch);
  encodeTopics(to, [at], ({ partition, offset }) => to.int32(partition).int64(offset).string(null));
  return request('TxnOffsetCommit', 28, 1, to, verdicts);
};

export const endTransaction = ({ transactionalId, id, epoch }: Transactor): Request<Verdict> => {
  const commit = true;
  const to = new Encoder().string(transactionalId).int64(id).int16(epoch).boolean(commit);
  return request('EndTxn', 26, 1, to, verdict);
};
