/**
 * `millrace channel drain`: what a file channel holds, to standard output or a file.
 *
 * @module
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import type { Writable } from 'node:stream';
import type { Clock } from '../core/clock.ts';
import type { Disk } from '../core/disk.ts';
import { MillraceError, systemCode, toError } from '../core/errors.ts';
import type { Batch, FlumeEvent } from '../core/event.ts';
import { countHeld, inspectLog, isGap, readThrough, type Gap } from '../log/inspect.ts';
import { LogReader } from '../log/reader.ts';
import { EventLog } from '../log/log.ts';
import { locked, refuseIncomplete } from '../log/repair.ts';
import { channelOf, counted, numbersOf, type ChannelArguments } from './channel-report.ts';

export interface DrainArguments extends ChannelArguments {
  /** A file that is not there yet; else standard output. */
  readonly to?: string | undefined;
  readonly format: 'text' | 'json';
  /** Only reads; also while another process has the channel open. */
  readonly keep: boolean;
  readonly force: boolean;
}

export interface DrainContext {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly stdout: Writable & { readonly fd?: number };
  /** Ends it after what is being written. */
  readonly stopped: AbortSignal;
  /** Says something that is not an event. */
  readonly say: (text: string) => void;
}

export interface Drained {
  readonly events: number;
  /** Events that are still there. With `keep` those that were not written. */
  readonly left: number;
  /** Events that could not be read. */
  readonly lost: number;
}

/**
 * Writes what is held, and says that it is done with when the output has it: a file when it is synced, a pipe when so much
 * more went through it that it was read.
 *
 * @throws MR_CONFIG, MR_LOCKED, MR_IO …
 */
export const drainChannel = async (given: DrainArguments, context: DrainContext): Promise<Drained> => {
  const channel = await channelOf(given);
  const { disk } = context;
  const { directories, codec } = channel;
  if (!given.keep)
    await locked(disk, directories, async () => {
      const log = await inspectLog(disk, directories, codec);
      if (given.force) return;
      const gaps: Gap[] = [];
      for await (const found of readThrough(disk, log, codec)) if (isGap(found)) gaps.push(found);
      refuseIncomplete(log, gaps);
    });
  const output = given.to === undefined ? streamOutput(context.stdout) : await fileOutput(given.to, disk);
  const encode = given.format === 'json' ? new JsonLines(context.say) : textLines;
  try {
    return given.keep ? await copy(channel, context, output, encode) : await move(channel, context, output, encode);
  } finally {
    await output.close();
  }
};

type Channel = Awaited<ReturnType<typeof channelOf>>;

/** Reads, and changes nothing. */
const copy = async (
  { directories, codec }: Channel,
  { disk, stopped, say }: DrainContext,
  output: Output,
  { encode }: Encoder,
): Promise<Drained> => {
  const log = await inspectLog(disk, directories, codec);
  for (const { header, path } of log.segments) codec.of(header, path);
  let [events, lost] = [0, 0];
  const left = () => log.end.seq - log.acked.events - events - lost;
  for await (const found of readThrough(disk, log, codec)) {
    if (stopped.aborted) break;
    if (isGap(found)) {
      const held = countHeld(log.acked, found.from.seq, found.to.seq);
      if (held > 0) say(`error: ${numbersOf(found)} cannot be read: ${found.why}.`);
      lost += held;
      continue;
    }
    const { seq, count } = found.frame.header;
    for (const [from, to] of log.acked.heldIn(seq, seq + count)) {
      if (!(await output.write(encode((found.batch as Batch).slice(from - seq, to - seq)))))
        return { events, left: left(), lost };
      events += to - from;
    }
  }
  await output.flush();
  return { events, left: left(), lost };
};

/** Bytes per write. */
const chunkSize = 1024 * 1024;

/** Nothing is put. */
const whileDraining = {
  fsync: 'commit',
  maxFileSize: Infinity,
  minimumRequiredSpace: 0,
  checkpointInterval: 30_000,
} as const;

/** Reads what is not done with, and says that it is. */
const move = async (
  { directories, codec }: Channel,
  { disk, clock, stopped, say }: DrainContext,
  output: Output,
  { encode }: Encoder,
): Promise<Drained> => {
  const report = (problem: Error) => say(`error: ${problem.message}`);
  const log = await EventLog.open({ ...directories, ...whileDraining, codec }, { disk, clock, report });
  const reader = new LogReader(log, disk);
  /** Written, and perhaps still in the pipe. */
  const written: { readonly batch: Batch; readonly end: number }[] = [];
  let [events, bytes] = [0, 0];
  const isStopped = () => stopped.aborted;
  const isAtEnd = () => reader.seq >= log.end;
  const settle = (upTo: number) => {
    for (let first = written[0]; first !== undefined && first.end <= upTo; first = written[0]) {
      for (const { first: start, count } of first.batch.positions ?? [])
        log.done({ start, end: start + count, bytes: first.batch.byteLength });
      events += first.batch.length;
      written.shift();
    }
  };
  try {
    while (!isAtEnd() && !isStopped()) {
      const batches = await reader.read(chunkSize);
      const pieces = batches.map(encode);
      if (!(await output.write(Buffer.concat(pieces)))) break;
      await output.flush();
      for (const [i, batch] of batches.entries()) written.push({ batch, end: (bytes += pieces[i]?.length ?? 0) });
      settle(isAtEnd() ? bytes : bytes - output.inPipe);
    }
    return { events, left: log.events, lost: log.counters.LostEventCount };
  } finally {
    await reader.close();
    await log.close();
  }
};

interface Encoder {
  readonly encode: (batch: Batch) => Buffer;
}

const newline = Buffer.from('\n');

/** Bodies, each with a newline behind it. Blocks are just that. */
const textLines: Encoder = {
  encode: batch => {
    const { blocks } = batch;
    if (blocks !== undefined) return Buffer.concat(blocks.map(({ bytes }) => bytes));
    return Buffer.concat(batch.events.flatMap(({ body }) => [body, newline]));
  },
};

/**
 * Flume's JSON events, one per line. A body that is not UTF-8 has its exact bytes in `bodyBase64` as well; what reads Flume's JSON
 * passes over that.
 */
class JsonLines implements Encoder {
  readonly #say: (text: string) => void;
  #said = false;

  constructor(say: (text: string) => void) {
    this.#say = say;
  }

  readonly encode = (batch: Batch): Buffer => Buffer.from(batch.events.map(event => this.#line(event)).join(''));

  #line({ headers, body }: FlumeEvent): string {
    const text = body.toString();
    if (Buffer.from(text).equals(body)) return `${JSON.stringify({ headers, body: text })}\n`;
    if (!this.#said) this.#say('warning: there are bodies that are not UTF-8; their bytes are in bodyBase64.');
    this.#said = true;
    return `${JSON.stringify({ headers, body: text, bodyBase64: body.toString('base64') })}\n`;
  }
}

interface Output {
  /** Resolves to false if nobody reads it any more. */
  write(bytes: Buffer): Promise<boolean>;
  flush(): Promise<void>;
  /** Bytes that were written and may not have been read. */
  readonly inPipe: number;
  close(): Promise<void>;
}

/** The largest pipe that Linux gives to whoever asks. */
const largestPipe = 1024 * 1024;

const streamOutput = (stream: DrainContext['stdout']): Output => {
  const kind = stream.fd === undefined ? undefined : fs.fstatSync(stream.fd);
  // What fails is known by the callback.
  const ignore = () => undefined;
  stream.on('error', ignore);
  return {
    inPipe: kind?.isFIFO() === true || kind?.isSocket() === true ? largestPipe : 0,
    write: bytes =>
      new Promise((resolve, reject) => {
        stream.write(bytes, error => {
          if (error == null) resolve(true);
          else if (systemCode(error) === 'EPIPE' || systemCode(error) === 'ECONNRESET') resolve(false);
          else reject(new MillraceError('MR_IO', `standard output: ${error.message}`, { cause: error }));
        });
      }),
    // Redirected to a file it can be made safe, too.
    flush: () =>
      new Promise((resolve, reject) => {
        if (kind?.isFile() !== true || stream.fd === undefined) resolve();
        else
          fs.fdatasync(stream.fd, error => {
            if (error === null) resolve();
            else reject(new MillraceError('MR_IO', `standard output: ${error.message}`, { cause: error }));
          });
      }),
    close: () => Promise.resolve(),
  };
};

/** A new file, or something that is no file, such as a named pipe. */
const fileOutput = async (path: string, disk: Disk): Promise<Output> => {
  const trouble = (thrown: unknown) => {
    const cause = toError(thrown);
    if (systemCode(cause) === 'EEXIST')
      return new MillraceError('MR_CONFIG', `${path} is there already, and is left as it is. Name another file.`);
    return new MillraceError('MR_IO', `${path}: ${cause.message}`, { cause });
  };
  const there = await fs.promises.stat(path).catch(() => undefined);
  const special = there !== undefined && !there.isFile() && !there.isDirectory();
  const file = await fs.promises.open(path, special ? 'w' : 'wx').catch((thrown: unknown) => {
    throw trouble(thrown);
  });
  let named = special;
  return {
    inPipe: there?.isFIFO() === true ? largestPipe : 0,
    write: async bytes => {
      try {
        await file.writeFile(bytes);
        return true;
      } catch (thrown) {
        if (systemCode(thrown) === 'EPIPE') return false;
        throw trouble(thrown);
      }
    },
    flush: async () => {
      if (special) return;
      await file.datasync().catch((thrown: unknown) => {
        throw trouble(thrown);
      });
      if (!named) await disk.syncDirectory(dirname(path));
      named = true;
    },
    close: () => file.close(),
  };
};

/** The last line, for people. */
export const drainedAsText = ({ events, left, lost }: Drained, { keep }: Pick<DrainArguments, 'keep'>): string =>
  [
    `${counted(events, 'event')} written${keep ? '; nothing was changed' : ' and let go of'}`,
    ...(lost > 0 ? [`${counted(lost, 'event')} could not be read`] : []),
    ...(left > 0 ? [keep ? `${left} more are held` : `${left} are still held`] : keep ? [] : ['the channel is empty']),
  ].join('; ');
