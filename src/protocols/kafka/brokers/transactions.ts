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
import { code } from '../refused.ts';
import type { Cluster } from './cluster.ts';
import { Coordinator } from './coordinator.ts';
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
  const known = new Map<string, Coordinator>();
  const coordinatorOf = (id: string, of: 'group' | 'transactions'): Coordinator => {
    const coordinator = known.get(`${of} ${id}`) ?? new Coordinator(cluster, id, of);
    known.set(`${of} ${id}`, coordinator);
    return coordinator;
  };
  return {
    begin: async (transactionalId, groupId, of) => {
      const transactions = coordinatorOf(transactionalId, 'transactions');
      const group = coordinatorOf(groupId, 'group');
      const transactor = await cluster.orClosed(initialise(transactions));
      // Not before: until then it may move.
      const position = await cluster.orClosed(stableOffset(group, of));
      return new Transactional(cluster, transactions, group, transactor, of, position);
    },
    close() {
      cluster.close();
      return Promise.resolve();
    },
  };
};

/** Asks; again while the transaction before is not over, or another has to be asked. */
const ask = <A extends requests.Refusable>(
  coordinator: Coordinator,
  request: Request<A>,
  doing: string,
): Promise<A> => {
  const until = Date.now() + longestTurn;
  return coordinator.ask(request, doing, () => (Date.now() > until ? undefined : turnWait), busy);
};

const initialise = async (coordinator: Coordinator): Promise<requests.Transactor> => {
  const transactionalId = coordinator.id;
  const request = requests.initProducerId(transactionalId, transactionTimeout);
  const { id, epoch } = await ask(coordinator, request, `beginning with transactional id ${transactionalId}`);
  return { transactionalId, id, epoch };
};

/** Where a group is when no transaction is about to change that; undefined if it never committed. */
const stableOffset = async (group: Coordinator, of: TopicPartition): Promise<number | undefined> => {
  const request = requests.stableOffsetFetch(group.id, of);
  const { partitions } = await ask(group, request, `looking where group ${group.id} is`);
  const offset = partitions[0]?.offset ?? -1;
  return offset < 0 ? undefined : offset;
};

class Transactional implements TransactionalProducer {
  readonly position: number | undefined;
  readonly #cluster: Cluster;
  readonly #transactions: Coordinator;
  readonly #group: Coordinator;
  readonly #by: requests.Transactor;
  readonly #of: TopicPartition;
  readonly #sequences = new Map<string, number>();
  #state: 'free' | 'busy' | 'over' = 'free';

  constructor(
    cluster: Cluster,
    transactions: Coordinator,
    group: Coordinator,
    by: requests.Transactor,
    of: TopicPartition,
    position: number | undefined,
  ) {
    this.#cluster = cluster;
    this.#transactions = transactions;
    this.#group = group;
    this.#by = by;
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
    const { id } = this.#group;
    await this.#ask(requests.addOffsets(this.#by, id));
    const request = requests.transactedOffset(this.#by, id, { ...this.#of, offset: next });
    await ask(this.#group, request, `committing offset ${next} for group ${id}`);
  }

  /** Asks the coordinator of the id. */
  #ask<A extends requests.Refusable>(request: Request<A>): Promise<A> {
    return ask(this.#transactions, request, `${request.name} of transactional id ${this.#by.transactionalId}`);
  }
}
