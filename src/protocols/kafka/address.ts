/**
 * Where an event goes in Kafka, and what of its record its headers say.
 *
 * @module
 */
import { MillraceError, toError } from '../../core/errors.ts';
import { newHeaders, type Headers } from '../../core/event.ts';
import { shown } from '../../core/options.ts';

export interface AddressOptions {
  readonly topicOf: (headers: Headers) => string;
  readonly defaultPartitionId?: number | undefined;
  readonly partitionIdHeader?: string | undefined;
  readonly timestampHeader?: string | undefined;
  /** Names of headers here, and in the record. */
  readonly headers: Readonly<Record<string, string>>;
}

/** What events with the same headers have in common. */
export interface Address {
  readonly topic: string;
  /** Undefined: by key, or any. */
  readonly partition: number | undefined;
  /** True if the event itself says which. */
  readonly named: boolean;
  readonly key: Buffer | null;
  /** Undefined without any. */
  readonly headers: Readonly<Record<string, string>> | undefined;
  readonly timestamp: number | undefined;
  /** Of key and headers. */
  readonly bytes: number;
}

const bad = (message: string) => new MillraceError('MR_BAD_INPUT', message);

/** A header that an event has itself. */
export const own = (headers: Headers, name: string | undefined): string | undefined =>
  name !== undefined && Object.hasOwn(headers, name) ? headers[name] : undefined;

const partitionIn = (name: string, value: string): number => {
  if (!/^\+?\d{1,9}$/.test(value))
    throw bad(`the header ${name} is no partition: ${shown(value)}. Expected a number from 0.`);
  return Number(value);
};

/** A topic, if there can be one of that name. As brokers check it. */
export const possibleTopic = (topic: string): string => {
  if (/^[\w.-]{1,249}$/.test(topic) && topic !== '.' && topic !== '..') return topic;
  throw bad(
    `there cannot be a topic ${shown(topic)}. Expected up to 249 letters, digits, dots, underscores and dashes.`,
  );
};

/**
 * Makes the function from headers to an address, or to why there is none. Neighbours often share their headers, and then get
 * the same object. `warn` is told once of times that are none.
 */
export const addressing = (options: AddressOptions, warn: (message: string) => void) => {
  const { topicOf, defaultPartitionId, partitionIdHeader, timestampHeader } = options;
  const mapped = Object.entries(options.headers);
  let last: Headers | undefined;
  let found: Address | Error = new Error('none yet');
  let warned = false;

  const timestampIn = (headers: Headers): number | undefined => {
    const value = own(headers, timestampHeader);
    if (value === undefined) return undefined;
    if (/^\d{1,15}$/.test(value)) return Number(value);
    if (!warned)
      warn(
        `the header ${String(timestampHeader)} is no time: ${shown(value)}. Such records get the time at which they are written.`,
      );
    warned = true;
    return undefined;
  };

  const addressOf = (headers: Headers): Address => {
    const partition = own(headers, partitionIdHeader);
    const key = own(headers, 'key');
    const keyBytes = key === undefined ? null : Buffer.from(key);
    let bytes = keyBytes?.length ?? 0;
    let recordHeaders: Record<string, string> | undefined;
    for (const [from, to] of mapped) {
      const value = own(headers, from);
      if (value === undefined) continue;
      (recordHeaders ??= newHeaders())[to] = value;
      bytes += to.length + Buffer.byteLength(value) + 10;
    }
    return {
      topic: possibleTopic(topicOf(headers)),
      partition: partition === undefined ? defaultPartitionId : partitionIn(partitionIdHeader as string, partition),
      named: partition !== undefined,
      key: keyBytes,
      headers: recordHeaders,
      timestamp: timestampIn(headers),
      bytes,
    };
  };

  return (headers: Headers): Address | Error => {
    if (headers === last) return found;
    last = headers;
    try {
      return (found = addressOf(headers));
    } catch (thrown) {
      return (found = toError(thrown));
    }
  };
};
