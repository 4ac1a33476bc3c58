/**
 * Real brokers by @platformatic/kafka, whose connections and logins it uses; requests, producing, group membership and fetching are
 * our own, the same as over kafkajs (see `brokers/`). Its own producer numbers batches wrongly when several sends are on their way;
 * its own consumer joins a group again before anybody may commit, commits for partitions that it has lost, and never looks for a
 * coordinator that has moved.
 *
 * @module
 */
import { MillraceError, systemCode } from '../../core/errors.ts';
import { createClient } from './brokers/client.ts';
import type { KafkaConnector } from './client.ts';
import { createWires } from './platformatic/wire.ts';

/**
 * A client that does all that the one by kafkajs does, also what it throws, over other connections. For Kafka 3.0 to 4.x.
 *
 * @throws MR_PEER_MISSING if @platformatic/kafka is not installed.
 */
export const platformatic: KafkaConnector = async settings => {
  const found = await import('@platformatic/kafka').catch((cause: unknown) => {
    if (systemCode(cause) !== 'ERR_MODULE_NOT_FOUND') throw cause;
    throw new MillraceError(
      'MR_PEER_MISSING',
      'Kafka: the package @platformatic/kafka is not installed. Run `npm install @platformatic/kafka@1`.',
      { cause },
    );
  });
  return createClient(createWires(found, settings), settings);
};
