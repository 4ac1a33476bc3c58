/**
 * Transactions of KIP-98, as they were before KIP-447: whoever reads a partition has the transactional id of that partition, and
 * brokers let only the last one who asked for the id commit.
 *
 * What keeps late requests out of later transactions: records are sent only to partitions of which the coordinator knows, each
 * sequence number is sent once, and after any failure the id is asked for anew. Then the markers that abort the transaction have a
 * higher epoch, and what is still on its way is refused by whoever gets it.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import type { Compression, KafkaTransactions, TopicPartition, TransactionalProducer, Write } from '../client.ts';
import { byTopic, nameOf } from '../partitions.ts';
import { wait } from '../waiting.ts';
import type { Cluster, Node } from './cluster.ts';
import { code, elsewhere, Refused } from '../refused.ts';
import { refusedBy } from './errors.ts';
import type { Package } from './package.ts';
import { leaderOf, packingOf, produce, type ProducerId } from './produce.ts';

/** In ms. After that without an end, the coordinator aborts a transaction itself. */
const transactionTimeout = 60_000;
/** In ms. */
const requestTimeout = 30_000;
/** The wait before a coordinator is asked again that has not ended the transaction before, and for how long, in ms. */
const turnWait = 20;
const longestTurn = 60_000;

/** Not refused, but the coordinator or the offsets are busy with the transaction before. */
const busy: ReadonlySet<number> = new Set([code.CONCURRENT_TRANSACTIONS, code.UNSTABLE_OFFSET_COMMIT]);

interface Answer {
  readonly errorCode: number;
}

export const createTransactions = (cluster: Cluster): KafkaTransactions => {
  const coordinators = new Coordinators(cluster);
  return {
    begin: async (id, groupId, of) => {
      const producer = await cluster.orClosed(initialise(coordinators, id));
      // Not before: until then it may move.
      const position = await cluster.orClosed(stableOffset(coordinators, groupId, of));
      return new Transactional(coordinators, id, producer, groupId, of, position);
    },
    close() {
      cluster.close();
      return Promise.resolve();
    },
  };
};

/** Who looks after groups and transactions. */
class Coordinators {
  readonly cluster: Cluster;
  readonly #known = new Map<string, Node>();

  constructor(cluster: Cluster) {
    this.cluster = cluster;
  }

  /** Asks the one of `id`; again while the transaction before is not over, or another has to be asked. */
  async ask<A>(
    id: string,
    of: 'group' | 'transactions',
    asking: (node: Node) => Promise<A>,
    codeOf: (answer: A) => number,
    doing: string,
  ): Promise<A> {
    const { kafkajs, closed } = this.cluster;
    const until = Date.now() + longestTurn;
    for (;;) {
      let refused: Refused;
      try {
        const node = await this.#of(id, of);
        const answer = await asking(node);
        const refusal = codeOf(answer);
        if (refusal === 0) return answer;
        refused = refusedBy(kafkajs, refusal, `broker ${node.address}, ${doing}`);
      } catch (thrown) {
        if (!(thrown instanceof Refused)) throw thrown;
        refused = thrown;
      }
      if (elsewhere.has(refused.broker)) this.#known.delete(`${of} ${id}`);
      else if (!busy.has(refused.broker)) throw refused;
      if (Date.now() > until || closed.aborted) throw refused;
      await wait(turnWait, closed);
    }
  }

  async #of(id: string, of: 'group' | 'transactions'): Promise<Node> {
    const known = this.#known.get(`${of} ${id}`);
    if (known?.usable === true) return known;
    const node = await this.cluster.coordinator(id, of);
    this.#known.set(`${of} ${id}`, node);
    return node;
  }
}

const initialise = async (coordinators: Coordinators, id: string): Promise<ProducerId> => {
  const { producerId, producerEpoch } = await coordinators.ask(
    id,
    'transactions',
    node =>
      node.ask<Answer & { producerId: string; producerEpoch: number }>('InitProducerId', {
        transactionalId: id,
        transactionTimeout,
      }),
    ({ errorCode }) => errorCode,
    `beginning with transactional id ${id}`,
  );
  return { id: producerId, epoch: producerEpoch };
};

/** Where a group is when no transaction is about to change that; undefined if it never committed. */
const stableOffset = async (
  coordinators: Coordinators,
  groupId: string,
  of: TopicPartition,
): Promise<number | undefined> => {
  const version = offsetFetch(coordinators.cluster.kafkajs, groupId, of);
  const { offset } = await coordinators.ask(
    groupId,
    'group',
    node => node.ask('OffsetFetch', { groupId, topics: [] }, version),
    ({ errorCode }) => errorCode,
    `looking where group ${groupId} is in topic ${of.topic}, partition ${of.partition}`,
  );
  return offset < 0 ? undefined : offset;
};

/** Version 7, which kafkajs does not know: the first that can wait for transactions. Its strings have a length more by one. */
const offsetFetch = ({ Encoder, Decoder }: Package, groupId: string, { topic, partition }: TopicPartition) => {
  const compact = (encoder: InstanceType<Package['Encoder']>, text: string) => {
    const bytes = Buffer.from(text);
    return encoder.writeUVarInt(bytes.length + 1).writeBuffer(bytes);
  };
  return {
    apiVersion: 7,
    encode: () => {
      // Tags of the header, of which there are none.
      const encoder = compact(new Encoder().writeInt8(0), groupId).writeUVarInt(2);
      compact(encoder, topic).writeUVarInt(2).writeInt32(partition).writeInt8(0);
      const requireStable = 1;
      return Promise.resolve(encoder.writeInt8(requireStable).writeInt8(0));
    },
    decode: (raw: Buffer): Promise<Answer & { offset: number }> => {
      const decoder = new Decoder(raw);
      decoder.readInt8(); // Tags of the header.
      decoder.readInt32(); // Throttling.
      let offset = -1;
      let refusal = 0;
      for (let topics = decoder.readUVarInt() - 1; topics > 0; topics--) {
        decoder.readBytes(decoder.readUVarInt() - 1);
        for (let partitions = decoder.readUVarInt() - 1; partitions > 0; partitions--) {
          decoder.readInt32();
          offset = Number(decoder.readInt64());
          decoder.readInt32(); // The epoch of its leader.
          decoder.readBytes(Math.max(0, decoder.readUVarInt() - 1)); // Metadata.
          refusal = decoder.readInt16();
          decoder.readInt8();
        }
        decoder.readInt8();
      }
      return Promise.resolve({ errorCode: decoder.readInt16() || refusal, offset });
    },
  };
};

class Transactional implements TransactionalProducer {
  readonly position: number | undefined;
  readonly #cluster: Cluster;
  readonly #coordinators: Coordinators;
  readonly #id: string;
  readonly #producer: ProducerId;
  readonly #groupId: string;
  readonly #of: TopicPartition;
  readonly #sequences = new Map<string, number>();
  #state: 'free' | 'busy' | 'over' = 'free';

  constructor(
    coordinators: Coordinators,
    id: string,
    producer: ProducerId,
    groupId: string,
    of: TopicPartition,
    position: number | undefined,
  ) {
    this.#cluster = coordinators.cluster;
    this.#coordinators = coordinators;
    this.#id = id;
    this.#producer = producer;
    this.#groupId = groupId;
    this.#of = of;
    this.position = position;
  }

  async commit(writes: readonly Write[], next: number, compression: Compression = 'none'): Promise<void> {
    if (this.#state !== 'free')
      throw new MillraceError(
        'MR_KAFKA',
        `Kafka: transactional id ${this.#id}: ${this.#state === 'busy' ? 'a commit is under way' : 'a commit failed before; begin anew'}.`,
      );
    this.#state = 'busy';
    try {
      await this.#cluster.orClosed(this.#commit(writes, next, compression));
      this.#state = 'free';
    } catch (thrown) {
      this.#state = 'over';
      // Leaders may have changed.
      await this.#cluster.refresh([...new Set(writes.map(({ to }) => to.topic))]).catch(() => undefined);
      throw thrown;
    }
  }

  async #commit(writes: readonly Write[], next: number, compression: Compression): Promise<void> {
    const partitions = new Map(writes.map(({ to }) => [nameOf(to), to]));
    if (partitions.size > 0)
      await this.#ask<{ errors: readonly { partitionErrors: readonly Answer[] }[] }>(
        'AddPartitionsToTxn',
        {
          topics: [...byTopic(partitions.values())].map(([topic, of]) => ({
            topic,
            partitions: of.map(({ partition }) => partition),
          })),
        },
        ({ errors }) => firstCode(errors.flatMap(({ partitionErrors }) => partitionErrors)),
      );
    await Promise.all([
      ...[...partitions].map(([key, to]) =>
        this.#produce(
          key,
          to,
          writes.filter(({ to: other }) => nameOf(other) === key),
          compression,
        ),
      ),
      this.#commitOffset(next),
    ]);
    await this.#ask<Answer>('EndTxn', { transactionResult: true });
  }

  /** Each batch once: if one fails, all of it is begun anew. */
  async #produce(key: string, to: TopicPartition, writes: readonly Write[], compression: Compression): Promise<void> {
    const cluster = this.#cluster;
    const node = await cluster.node(await leaderOf(cluster, to));
    const packing = packingOf(cluster.kafkajs, compression);
    for (const { records } of writes) {
      const sequence = this.#sequences.get(key) ?? 0;
      this.#sequences.set(key, (sequence + records.length) % 2 ** 31);
      const producer = { ...this.#producer, sequence };
      const options = { acks: -1, requestTimeout, packing, producer, transactionalId: this.#id };
      await produce(cluster.kafkajs, node, to, records, options);
    }
  }

  async #commitOffset(next: number): Promise<void> {
    const { topic, partition } = this.#of;
    const groupId = this.#groupId;
    await this.#ask<Answer>('AddOffsetsToTxn', { groupId });
    await this.#coordinators.ask(
      groupId,
      'group',
      node =>
        node.ask<{ topics: readonly { partitions: readonly Answer[] }[] }>('TxnOffsetCommit', {
          ...this.#who,
          groupId,
          topics: [{ topic, partitions: [{ partition, offset: String(next), metadata: null }] }],
        }),
      ({ topics }) => firstCode(topics.flatMap(({ partitions }) => partitions)),
      `committing offset ${next} of topic ${topic}, partition ${partition} for group ${groupId}`,
    );
  }

  get #who() {
    return { transactionalId: this.#id, producerId: this.#producer.id, producerEpoch: this.#producer.epoch };
  }

  /** Asks the coordinator of the id. */
  #ask<A>(
    api: string,
    args: object,
    codeOf: (answer: A) => number = answer => (answer as A & Answer).errorCode,
  ): Promise<A> {
    return this.#coordinators.ask(
      this.#id,
      'transactions',
      node => node.ask<A>(api, { ...this.#who, ...args }),
      codeOf,
      `${api} of transactional id ${this.#id}`,
    );
  }
}

const firstCode = (answers: readonly Answer[]): number =>
  answers.find(({ errorCode }) => errorCode !== 0)?.errorCode ?? 0;
