/**
 * Real brokers by kafkajs 2.2.4, whose connections and logins it uses; requests, producing, group membership and fetching are our
 * own (see `brokers/` and `kafkajs/package.ts`). For Kafka 2.4 to 4.x.
 *
 * @module
 */
import { createClient } from './brokers/client.ts';
import type { KafkaConnector } from './client.ts';
import { loadKafkajs } from './kafkajs/package.ts';
import { createWires } from './kafkajs/wire.ts';

/**
 * A client that is loaded and makes connections when they are needed first. Everything that a broker or a network does wrong is tried
 * again by consumers for ever, and by producers for some seconds before the caller hears of it.
 *
 * @throws MR_PEER_MISSING if kafkajs 2.2.4 is not installed, and by `producer` for the package of a codec; MR_CONFIG for addresses
 *   that are none.
 */
export const kafkajs: KafkaConnector = async settings =>
  Promise.resolve(createClient(createWires(loadKafkajs(), settings), settings));
