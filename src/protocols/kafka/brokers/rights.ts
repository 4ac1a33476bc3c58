/**
 * What brokers answer when they are asked for rights.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import { rights, type Right, type TopicAccess } from '../client.ts';

/** The codes that Kafka's protocol has for operations. */
const operations: Readonly<Record<Right, number>> = { read: 3, write: 4, describe: 8 };

/** From the field of bits that a broker sends: one for each operation that is allowed. */
export const rightsOf = (bits: number): ReadonlySet<Right> =>
  new Set(rights.filter(right => (bits & (1 << operations[right])) !== 0));

const unknownTopic = 3;
const notAuthorized = 29;

/** From what a broker says of a topic, of which a part may be a refusal. */
export const accessOf = (
  topic: string,
  errorCode: number,
  partitions: number,
  bits: number,
  refused: () => Error,
): TopicAccess => {
  if (errorCode === notAuthorized) return { topic, partitions: 0, rights: new Set() };
  // Who may not see it is not told that it is not there.
  if (errorCode === unknownTopic) return { topic, partitions: 0, rights: new Set(['describe', ...rightsOf(bits)]) };
  if (errorCode !== 0 && partitions === 0) throw refused();
  return { topic, partitions, rights: rightsOf(bits) };
};

/** Of who may not even ask. Throws anything else. */
export const noRights = (thrown: unknown): ReadonlySet<Right> => {
  if (thrown instanceof MillraceError && thrown.code === 'MR_KAFKA_NOT_AUTHORIZED') return new Set();
  throw thrown;
};
