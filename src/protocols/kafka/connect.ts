/**
 * From options to a client of a cluster.
 *
 * @module
 */
import type { Log } from '../../core/scope.ts';
import type { KafkaClient } from './client.ts';
import { connectionOf } from './properties.ts';

/**
 * Makes the client that the options ask for; without `connect` one of kafkajs, which is loaded now.
 *
 * @throws MR_PEER_MISSING if its package is not installed, MR_CONFIG if a file or a secret that the options name is not there.
 */
export const connectTo = async (options: Parameters<typeof connectionOf>[0], log: Log): Promise<KafkaClient> => {
  const connect = options.connect ?? (await import('./kafkajs.ts')).kafkajs;
  return connect(await connectionOf(options, log));
};
