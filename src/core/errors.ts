/**
 * Every error that millrace raises: a code from one table, whether trying again can help, and what to do.
 *
 * @module
 */

/** Code → does trying again help, and what it means. `docs/reference/errors.md` is generated from this table. */
export const errorCodes = {
  MR_ADDRESS_IN_USE: {
    retriable: true,
    meaning: 'Another process listens on this address; free it or choose another port.',
  },
  MR_BAD_INPUT: {
    retriable: false,
    meaning: 'Bytes from outside could not be understood; they were counted and refused.',
  },
  MR_CHANNEL_CLOSED: { retriable: true, meaning: 'The channel was closed while the delivery waited for room.' },
  MR_CHANNEL_FULL: {
    retriable: true,
    meaning: 'No room became free within keep-alive; the delivery will be offered again.',
  },
  MR_CONFIG: {
    retriable: false,
    meaning: 'An option or a line of the configuration is wrong; the message says which and what was expected.',
  },
  MR_CORRUPT_FILE: {
    retriable: false,
    meaning: 'A file of our own could not be read; it was set aside under another name, never deleted.',
  },
  MR_DATA_LOST: {
    retriable: false,
    meaning: 'Events that were safe once cannot be read any more; the message says how many and which.',
  },
  MR_DELIVERY_LEAKED: {
    retriable: true,
    meaning: 'A delivery was garbage-collected unsettled: some operator dropped it. It is delivered again.',
  },
  MR_EVENT_TOO_LARGE: {
    retriable: false,
    meaning: 'One event is larger than the limit of the component; raise the limit or dead-letter the event.',
  },
  MR_FOREIGN_FILES: {
    retriable: false,
    meaning: 'A directory holds files of another program; it is left as it is. Choose an empty directory.',
  },
  MR_FLOW_STOPPED: {
    retriable: true,
    meaning: 'The flow was aborted, or a stop ran out of time, before this was settled.',
  },
  MR_IO: { retriable: true, meaning: 'The operating system refused a file or socket operation; the cause says which.' },
  MR_KAFKA: {
    retriable: true,
    meaning: 'A Kafka broker could not do what it was asked; the message names broker, topic and partition.',
  },
  MR_KAFKA_LOGIN: {
    retriable: true,
    meaning:
      'A Kafka broker refused the login or the TLS handshake; new credentials are used as soon as they are there.',
  },
  MR_KAFKA_NOT_AUTHORIZED: {
    retriable: false,
    meaning: 'The Kafka user has no right to do this; the message says which right on which topic or group.',
  },
  MR_KAFKA_OFFSET: {
    retriable: false,
    meaning: 'The records that were to be read next are not in the Kafka partition any more, or not yet.',
  },
  MR_KAFKA_UNKNOWN_TOPIC: {
    retriable: true,
    meaning: 'The Kafka topic or partition does not exist; create it, or let brokers do so.',
  },
  MR_KAFKA_UNREACHABLE: {
    retriable: true,
    meaning: 'No Kafka broker answers under these addresses; it is tried again.',
  },
  MR_NEWER_FORMAT: {
    retriable: false,
    meaning: 'A file was written by a newer version; it is left as it is. Use that version.',
  },
  MR_NO_ROUTE: { retriable: false, meaning: 'No case of a route matched and there is no default.' },
  MR_NOT_BUILT_IN: { retriable: false, meaning: 'A real Flume component that this version does not have yet.' },
  MR_OVERFLOW: {
    retriable: false,
    meaning: 'An Observable that cannot be slowed produced more than the capacity given to fromObservable.',
  },
  MR_LOCKED: {
    retriable: true,
    meaning: 'Another process uses this directory; stop it, or choose another directory.',
  },
  MR_DISK_FULL: {
    retriable: true,
    meaning: 'Less room is left on the disk than minimumRequiredSpace; it goes on when there is more.',
  },
  MR_PEER_MISSING: {
    retriable: false,
    meaning: 'A package that this component needs is not installed; the message says how to install it.',
  },
  MR_SINK_FAILED: { retriable: true, meaning: 'A sink could not write, and its retry policy is spent.' },
  MR_SINK_USED: { retriable: false, meaning: 'A sink value belongs to one flow; make a new one for the next flow.' },
  MR_SOURCE_BUSY: {
    retriable: false,
    meaning: 'A source has one session at a time; to fan out put replicate() behind it, to fan in use merge().',
  },
  MR_SOURCE_FAILED: {
    retriable: true,
    meaning: 'A source broke and has closed; subscribe again (retry) to reopen it.',
  },
  MR_WRONG_KEY: {
    retriable: false,
    meaning: 'A file is encrypted with a key that was not given, or with another one of that name; give the right one.',
  },
  MR_USER_CODE: { retriable: true, meaning: 'A callback given to an operator threw; the batch is delivered again.' },
} as const satisfies Record<string, { retriable: boolean; meaning: string }>;

export type ErrorCode = keyof typeof errorCodes;

/** The one root class. Branch on `code`; `retriable` says whether doing the same again can help. */
export class MillraceError extends Error {
  readonly code: ErrorCode;
  readonly retriable: boolean;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; retriable?: boolean } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'MillraceError';
    this.code = code;
    this.retriable = options.retriable ?? errorCodes[code].retriable;
  }
}

/** Whatever was thrown, as an Error. */
export const toError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)));

/** True when repeating cannot help: a sink that throws this rejects the event instead of retrying it. */
export const isPermanent = (error: unknown): boolean => error instanceof MillraceError && !error.retriable;

/** What errors of one kind have in common, wherever they come from: the code, or without one the message. */
export const kindOf = (error: Error | undefined): string | undefined =>
  error instanceof MillraceError ? error.code : error?.message;

/** The operating system's code of an error (`ENOENT`, `EADDRINUSE` …), if it has one. */
export const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
