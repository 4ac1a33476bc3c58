/**
 * The output of a command, line by line: Flume's `exec`.
 *
 * @module
 */
import { spawn, type ChildProcess } from 'node:child_process';
import split from 'split2';
import { z } from 'zod';
import type { Clock, Timer } from '../core/clock.ts';
import { defineSource } from '../core/component.ts';
import { MillraceError } from '../core/errors.ts';
import { Batch, noHeaders, type Block } from '../core/event.ts';
import type { Counters } from '../core/metrics.ts';
import { flag, int, text } from '../core/options.ts';
import type { Emitter, SourceContext, SourceSession } from '../core/source.ts';
import { cutLines, partHeaders } from '../protocols/lines.ts';

const options = z
  .object({
    command: text('The command. Without a shell it is cut at white space, and quotes mean nothing.'),
    shell: text('What runs the command, as `/bin/sh -c`: for pipes, wildcards and quotes.', { optional: true }),
    restart: flag('Whether it is started again when it ends.', { default: false }),
    restartThrottle: int('How long to wait before that.', { default: 10_000, min: 0, unit: 'ms' }),
    logStdErr: flag('Whether what it writes to standard error is logged.', { default: false }),
    batchSize: int('Lines per delivery, at most.', { default: 20, min: 1, unit: 'lines' }),
    batchTimeout: int('How long lines wait for a batch to fill. In code the default is not to wait.', {
      default: 0,
      agentDefault: 3000,
      min: 0,
      unit: 'ms',
    }),
    charset: text('Encoding of the output. Bytes are passed on as they are, so any that extends ASCII will do.', {
      default: 'UTF-8',
    }),
    maxLineLength: int('A line that is longer is delivered in parts, with the headers linePart and lineParts.', {
      default: 1024 * 1024,
      min: 1,
      max: 64 * 1024 * 1024,
      unit: 'bytes',
    }),
  })
  .refine(({ command }) => command.trim() !== '', { path: ['command'], message: 'it is empty' })
  .refine(({ charset }) => !/^(x-)?utf_?-?(16|32)|^ucs/i.test(charset), {
    path: ['charset'],
    message:
      'expected an encoding that extends ASCII. Have the command convert its output: … | iconv -f UTF-16 -t UTF-8, with a shell',
  });
type Options = z.output<typeof options>;
export type ExecOptions = z.input<typeof options>;

/**
 * Runs a command and delivers the lines that it writes to standard output.
 *
 * **emits** lines, without the `\n`, `\r\n` or `\r` that ends them, when there are `batchSize` of them or the first has
 * waited for `batchTimeout`; the last one also if nothing ends it · **pauses** by not reading, so that the command waits
 * when its pipe is full · **completes** when the command ends, unless it is to `restart` · **errors** when the command
 * cannot be started, unless it is to `restart`.
 *
 * What is nacked is delivered again from memory. The command knows nothing of it: what it wrote and was not delivered when
 * this process ends is lost. A stop ends the command and everything that it has started, first by SIGTERM, after 5 s by
 * SIGKILL; what they still write is delivered, up to 1 MiB.
 */
export const execSource = defineSource({
  type: 'exec',
  className: 'org.apache.flume.source.ExecSource',
  summary: 'Lines that a command writes.',
  batchSizeOption: 'batchSize',
  replayable: false,
  options,
  open: options => (emitter, context) => new Running(options, emitter, context),
});

/** How long a command that is to end may take. */
const grace = 5000;

/** How much a command that is to end may write. */
const maxLastWords = 1024 * 1024;

/** Lines on standard error that are longer are cut when they are logged. The types do not know `skipOverflow`. */
const logged = { maxLength: 8192, skipOverflow: true };

const newline = Buffer.from('\n');

/** One command after the other, and the lines that were read and have not left. */
class Running implements SourceSession {
  readonly #options: Options;
  readonly #emitter: Emitter;
  readonly #context: SourceContext;
  readonly #counters: Counters;
  #command: Command | undefined;
  /** All of the output is read, and the command will not be started again. */
  #ended = false;
  #stopped = false;
  /** Bytes read since it was stopped. */
  #lastWords = 0;
  #asked = false;
  /** Lines end with `\n` here, whatever they ended with. */
  #unread: Buffer = Buffer.alloc(0);
  /** The last byte read was a `\r`: a `\n` after it belongs to it. */
  #afterReturn = false;
  /** How many parts of the present line have left. */
  #parts = 0;
  /** Runs while lines wait for a batch to fill. */
  #patience: Timer;
  #impatient = false;
  #restart: Timer;

  constructor(options: Options, emitter: Emitter, context: SourceContext) {
    this.#options = options;
    this.#emitter = emitter;
    this.#context = context;
    this.#counters = Object.assign(context.counters, { LinePartCount: 0, ...context.counters });
    this.#start();
  }

  pull(): void {
    this.#asked = true;
    this.#next();
  }

  async stop(): Promise<void> {
    const { clock } = this.#context;
    this.#stopped = true;
    clock.cancel(this.#restart);
    clock.cancel(this.#patience);
    this.#next();
    await this.#command?.end(clock);
  }

  // --- the command

  #start(): void {
    const { command, shell, logStdErr } = this.#options;
    const { name, log } = this.#context;
    const argv = shell === undefined ? command.trim().split(/\s+/) : [...shell.trim().split(/\s+/), command];
    this.#command = new Command(argv, logStdErr);
    const { stdout, stderr } = this.#command.process;
    stdout?.on('data', (bytes: Buffer) => this.#read(bytes));
    stderr?.pipe(split(logged)).on('data', (line: string) => log.warn(`${name}: the command says: ${line}`));
    void this.#command.closed.then(outcome => this.#closed(outcome));
    this.#next();
  }

  #closed({ good, text, cause }: Outcome): void {
    const { restart, restartThrottle } = this.#options;
    const { name, log, clock, counters } = this.#context;
    this.#command = undefined;
    // The last line needs no end.
    if (this.#unread.length > 0 && this.#unread.at(-1) !== 0x0a) this.#unread = Buffer.concat([this.#unread, newline]);
    this.#afterReturn = false;
    if (!this.#stopped) {
      if (!good) counters.EventReadFail++;
      const then = restart ? ` It is started again in ${restartThrottle} ms.` : '';
      log[good ? 'info' : 'warn'](`${name}: ${text}.${then}`, { cause });
      if (restart) this.#restart = clock.after(restartThrottle, () => this.#start());
      else if (cause === undefined) this.#ended = true;
      else this.#emitter.fail(cause);
    }
    this.#next();
  }

  // --- its lines

  #read(bytes: Buffer): void {
    if (this.#stopped) this.#lastWords += bytes.length;
    if (this.#lastWords > maxLastWords) this.#command?.signal('SIGKILL');
    const lines = this.#withoutReturns(bytes);
    this.#unread = this.#unread.length === 0 ? lines : Buffer.concat([this.#unread, lines]);
    this.#next();
  }

  /** `\r\n` and `\r` become `\n`. */
  #withoutReturns(bytes: Buffer): Buffer {
    if (!this.#afterReturn && !bytes.includes(0x0d)) return bytes;
    let kept = 0;
    for (const byte of bytes) {
      const second = this.#afterReturn && byte === 0x0a;
      this.#afterReturn = byte === 0x0d;
      if (!second) bytes[kept++] = this.#afterReturn ? 0x0a : byte;
    }
    return bytes.subarray(0, kept);
  }

  /** Answers a pull if there are enough lines, and reads on as long as one is unanswered. */
  #next(): void {
    // Stopped, everything leaves: nobody could read it again.
    while (this.#stopped || (this.#asked && this.#enough())) {
      const block = this.#cut();
      if (block === undefined) break;
      this.#asked = this.#impatient = false;
      this.#context.clock.cancel(this.#patience);
      this.#patience = undefined;
      this.#emitter.emit(Batch.ofBlock(block));
    }
    if (this.#ended && this.#unread.length === 0) this.#emitter.complete();
    const stdout = this.#command?.process.stdout;
    if (this.#asked || this.#stopped) stdout?.resume();
    else stdout?.pause();
  }

  /** Whether what there is may leave: a full batch, or one that has waited for long enough or is large enough. */
  #enough(): boolean {
    const { batchSize, batchTimeout, maxLineLength } = this.#options;
    if (batchTimeout === 0 || this.#impatient || this.#ended || this.#unread.length >= maxLineLength) return true;
    const lines = cutLines(this.#unread, noHeaders, batchSize)?.ends.length ?? 0;
    if (lines === batchSize) return true;
    if (lines > 0) {
      this.#patience ??= this.#context.clock.after(batchTimeout, () => {
        this.#impatient = true;
        this.#next();
      });
    }
    return false;
  }

  /** The next lines, or a part of one that is too long; undefined if there is no whole line. */
  #cut(): Block | undefined {
    const { batchSize, maxLineLength } = this.#options;
    const block = cutLines(this.#unread, noHeaders, this.#parts > 0 ? 1 : batchSize);
    if (block !== undefined) {
      this.#unread = this.#unread.subarray(block.bytes.length);
      if (this.#parts === 0) return block;
      const headers = partHeaders(noHeaders, this.#parts + 1, true);
      this.#parts = 0;
      return { ...block, headers };
    }
    if (this.#unread.length < maxLineLength) return undefined;
    const bytes = Buffer.concat([this.#unread.subarray(0, maxLineLength), newline]);
    this.#unread = this.#unread.subarray(maxLineLength);
    this.#counters['LinePartCount'] = (this.#counters['LinePartCount'] ?? 0) + 1;
    return { bytes, ends: Uint32Array.of(maxLineLength), headers: partHeaders(noHeaders, ++this.#parts, false) };
  }
}

/** How a command ended. */
interface Outcome {
  readonly good: boolean;
  readonly text: string;
  /** Why it could not be started. */
  readonly cause?: Error;
}

/** Commands that run now. */
const running = new Set<Command>();

/** They have process groups of their own, and would survive this process. */
const endAll = (): void => {
  for (const command of running) command.signal('SIGKILL');
};

/** A process with everything that it starts. */
class Command {
  readonly process: ChildProcess;
  /** Resolves when it has ended and all of its output is read. */
  readonly closed: Promise<Outcome>;

  constructor([file = '', ...args]: readonly string[], withErrors: boolean) {
    // A group of its own can be ended with all that is in it. Windows has none.
    const detached = process.platform !== 'win32';
    this.process = spawn(file, args, { detached, stdio: ['ignore', 'pipe', withErrors ? 'pipe' : 'ignore'] });
    if (running.size === 0) process.on('exit', endAll);
    running.add(this);
    this.closed = new Promise(resolve => {
      this.process.once('error', cause => {
        const text = `${file} cannot be started: ${cause.message}`;
        resolve({ good: false, text, cause: new MillraceError('MR_SOURCE_FAILED', `exec: ${text}.`, { cause }) });
      });
      this.process.once('close', (code, signal) => {
        const text = signal === null ? `the command has ended with exit code ${code}` : `${signal} ended the command`;
        resolve({ good: code === 0, text });
      });
    });
    void this.closed.then(() => {
      running.delete(this);
      if (running.size === 0) process.off('exit', endAll);
    });
  }

  /** Asks all of it to end, and ends what does not. */
  async end(clock: Clock): Promise<void> {
    this.signal('SIGTERM');
    let timer: Timer;
    await Promise.race([this.closed, new Promise<void>(resolve => (timer = clock.after(grace, resolve)))]);
    clock.cancel(timer);
    // What it has started may have survived it.
    this.signal('SIGKILL');
    this.process.stdout?.destroy();
    this.process.stderr?.destroy();
    await this.closed;
  }

  signal(signal: 'SIGTERM' | 'SIGKILL'): void {
    const { pid } = this.process;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // No such group: on Windows, or because all of it has ended.
      this.process.kill(signal);
    }
  }
}
