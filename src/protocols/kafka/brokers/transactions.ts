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
import { nameOf } from '../partitions.ts';
import { wait } from '../waiting.ts';
import { code, elsewhere, Refused } from '../refused.ts';
import type { Cluster, Node } from './cluster.ts';
import { leaderOf, packingOf, produce } from './produce.ts';
import * as requests from './requests.ts';
import type { Request } from './wire.ts';

/** In ms. After that without an end, the coordinator aborts a transaction itself. */
const transactionTimeout = 60_000;
/** In ms. */
const requestTimeout = 30_000;
/** The wait before a coordinator is asked again that has not ended the transaction before, and for how long, in ms. */
const turnWait = 20;
const longestTurn = 60_000;

/** Not refused, but the coordinator or the offsets are busy with the transaction before. */
const busy: ReadonlySet<number> = new Set([code.CONCURRENT_TRANSACTIONS, code.UNSTABLE_OFFSET_COMMIT]);

export const createTransactions = (cluster: Cluster): KafkaTransactions => {
  const coordinators = new Coordinators(cluster);
  return {
    begin: async (id, groupId, of) => {
      const transactor = await cluster.orClosed(initialise(coordinators, id));
      // Not before: until then it may move.
      const position = await cluster.orClosed(stableOffset(coordinators, groupId, of));
      return new Transactional(coordinators, transactor, groupId, of, position);
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
  async ask<A extends requests.Refusable>(
    id: string,
    of: 'group' | 'transactions',
    request: Request<A>,
    doing: string,
  ): Promise<A> {
    const { closed } = this.cluster;
    const until = Date.now() + longestTurn;
    for (;;) {
      let refused: Refused;
      try {
        const node = await this.#of(id, of);
        const answer = await node.ask(request);
        const refusal = requests.refusalIn(answer);
        if (refusal === 0) return answer;
        refused = this.cluster.refused(refusal, `broker ${node.address}, ${doing}`);
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

const initialise = async (coordinators: Coordinators, transactionalId: string): Promise<requests.Transactor> => {
  const { id, epoch } = await coordinators.ask(
    transactionalId,
    'transactions',
    requests.initProducerId(transactionalId, transactionTimeout),
    `beginning with transactional id ${transactionalId}`,
  );
  return { transactionalId, id, epoch };
};

/** Where a group is when no transaction is about to change that; undefined if it never committed. */
const stableOffset = async (
  coordinators: Coordinators,
  groupId: string,
  of: TopicPartition,
): Promise<number | undefined> => {
  const { partitions } = await coordinators.ask(
    groupId,
    'group',
    requests.stableOffsetFetch(groupId, of),
    `looking where group ${groupId} is in topic ${of.topic}, partition ${of.partition}`,
  );
  const offset = partitions[0]?.offset ?? -1;
  return offset < 0 ? undefined : offset;
};

class Transactional implements TransactionalProducer {
  readonly position: number | undefined;
  readonly #cluster: Cluster;
  readonly #coordinators: Coordinators;
  readonly #by: requests.Transactor;
  readonly #groupId: string;
  readonly #of: TopicPartition;
  readonly #sequences = new Map<string, number>();
  #state: 'free' | 'busy' | 'over' = 'free';

  constructor(
    coordinators: Coordinators,
    by: requests.Transactor,
    groupId: string,
    of: TopicPartition,
    position: number | undefined,
  ) {
    this.#cluster = coordinators.cluster;
    this.#coordinators = coordinators;
    this.#by = by;
    this.#groupId = groupId;
    this.#of = of;
    this.position = position;
  }

  async commit(writes: readonly Write[], next: number, compression: Compression = 'none'): Promise<void> {
    if (this.#state !== 'free')
      throw new MillraceError(
        'MR_KAFKA',
        `Kafka: transactional id ${this.#by.transactionalId}: ${this.#state === 'busy' ? 'a commit is under way' : 'a commit failed before; begin anew'}.`,
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
    if (partitions.size > 0) await this.#ask(requests.addPartitions(this.#by, partitions.values()));
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
    await this.#ask(requests.endTransaction(this.#by));
  }

  /** Each batch once: if one fails, all of it is begun anew. */
  async #produce(key: string, to: TopicPartition, writes: readonly Write[], compression: Compression): Promise<void> {
    const cluster = this.#cluster;
    const node = await cluster.node(await leaderOf(cluster, to));
    const packing = packingOf(compression);
    const { transactionalId, id, epoch } = this.#by;
    for (const { records } of writes) {
      const sequence = this.#sequences.get(key) ?? 0;
      this.#sequences.set(key, (sequence + records.length) % 2 ** 31);
      const options = { acks: -1, requestTimeout, packing, producer: { id, epoch, sequence }, transactionalId };
      await produce(cluster, node, to, records, options);
    }
  }

  async #commitOffset(next: number): Promise<void> {
    const { topic, partition } = this.#of;
    const groupId = this.#groupId;
    await this.#ask(requests.addOffsets(this.#by, groupId));
    await this.#coordinators.ask(
      groupId,
      'group',
      requests.transactedOffset(this.#by, groupId, { topic, partition, offset: next }),
      `committing offset ${next} of topic ${topic}, partition ${partition} for group ${groupId}`,
    );
  }

  /** Asks the coordinator of the id. */
  #ask<A extends requests.Refusable>(request: Request<A>): Promise<A> {
    const { transactionalId } = this.#by;
    const doing = `${request.name} of transactional id ${transactionalId}`;
    return this.#coordinators.ask(transactionalId, 'transactions', request, doing);
  }
}
