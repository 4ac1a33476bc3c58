/**
 * The output of a command, one event per line: Flume's `exec`.
 *
 * @module
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { TextDecoder } from 'node:util';
import split2 from 'split2';
import { z } from 'zod';
import type { Timer } from '../core/clock.ts';
import { defineSource } from '../core/component.ts';
import { MillraceError } from '../core/errors.ts';
import { event, type FlumeEvent } from '../core/event.ts';
import { flag, int, text } from '../core/options.ts';
import type { Emitter, SourceContext, SourceSession } from '../core/source.ts';

const options = z.object({
  command: text('The command. Without `shell` it is split at white space.'),
  shell: text('The shell that runs the command, for pipes and wildcards: `/bin/sh -c`.', { optional: true }),
  restart: flag('Whether to run the command again when it has ended.', { default: false }),
  restartThrottle: int('How long to wait before that.', { default: 10_000, min: 0, unit: 'ms' }),
  logStdErr: flag('Whether to log what the command writes to its standard error.', { default: false }),
  batchSize: int('Lines per delivery at most.', { default: 20, min: 1, unit: 'events' }),
  batchTimeout: int('How long a line may wait for others to go with.', { default: 3000, min: 0, unit: 'ms' }),
  charset: text('Encoding of the output; bodies are UTF-8.', { default: 'UTF-8' }),
  maxLineLength: int('Longest line; a longer one becomes several events.', {
    default: 1 << 20,
    min: 1,
    unit: 'characters',
  }),
});
type Options = z.output<typeof options>;
export type ExecOptions = z.input<typeof options>;

/**
 * Runs a command and follows its standard output.
 *
 * **emits** when `batchSize` lines are there, or after `batchTimeout`, or at the end · **pauses** by not reading, so that the
 * command waits at its next write · **completes** when the command has ended, unless `restart` · **errors** when it cannot
 * be run, unless `restart`.
 *
 * A command cannot be asked for a line again: what it wrote and is not delivered when the process dies is lost. A stop
 * ends the command and all that it started, and delivers what it had written.
 */
export const execSource = defineSource({
  type: 'exec',
  className: 'org.apache.flume.source.ExecSource',
  summary: 'The output of a command, one event per line.',
  batchSizeOption: 'batchSize',
  options,
  replayable: false,
  open: options => (emitter, context) => {
    try {
      new TextDecoder(options.charset);
    } catch (cause) {
      throw new MillraceError('MR_CONFIG', `${context.name}: there is no charset ${options.charset}.`, { cause });
    }
    return new Command(options, emitter, context);
  },
});

/** A line ends at `\n`, `\r` or `\r\n`; a `\r` that is the last we have may be the first half of one. */
const lineEnd = /\r\n|\n|\r(?!$)/;

/** How long a command that was told to end may take. */
const patience = 2000;

class Command implements SourceSession {
  readonly #options: Options;
  readonly #emitter: Emitter;
  readonly #context: SourceContext;
  #child: ChildProcess | undefined;
  #lines: FlumeEvent[] = [];
  #rest = '';
  /** There is credit for a delivery. */
  #asked = false;
  /** Lines have waited long enough. */
  #due = false;
  #timer: Timer;
  #restart: Timer;
  #stopping = false;
  #ended: Promise<void> = Promise.resolve();

  constructor(options: Options, emitter: Emitter, context: SourceContext) {
    this.#options = options;
    this.#emitter = emitter;
    this.#context = context;
    this.#run();
  }

  pull(): void {
    this.#asked = true;
    this.#deliver();
    this.#child?.stdout?.resume();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#context.clock.cancel(this.#restart);
    const child = this.#child;
    if (child === undefined) return;
    signal(child, 'SIGTERM');
    child.stdout?.resume();
    const impatient = this.#context.clock.after(patience, () => signal(child, 'SIGKILL'));
    await this.#ended;
    this.#context.clock.cancel(impatient);
  }

  close(): void {
    this.#context.clock.cancel(this.#timer);
    if (this.#child !== undefined) signal(this.#child, 'SIGKILL');
  }

  #run(): void {
    const { command, shell, logStdErr, charset } = this.#options;
    const { log, name } = this.#context;
    const [program = '', ...words] =
      shell === undefined ? command.trim().split(/\s+/) : [...shell.trim().split(/\s+/), command];
    // A group of its own, so that a stop reaches whatever it starts.
    const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'], detached: process.platform !== 'win32' });
    this.#child = child;
    const decoder = new TextDecoder(charset);
    child.stdout.on('data', (chunk: Buffer) => this.#read(decoder.decode(chunk, { stream: true })));
    if (logStdErr) {
      // skipOverflow is missing in the published types.
      const limits: { maxLength: number; skipOverflow: boolean } = { maxLength: 8192, skipOverflow: true };
      const lines = child.stderr.pipe(split2(limits));
      lines.on('data', (line: string) => {
        log.warn(`${name}: ${line}`);
      });
    } else child.stderr.resume();
    let failure: Error | undefined;
    child.on('error', (cause: Error) => {
      failure = cause;
    });
    this.#ended = new Promise(resolve => {
      child.once('close', (status, killed) => {
        this.#child = undefined;
        this.#read(decoder.decode());
        this.#finish(failure, killed ?? status);
        resolve();
      });
    });
  }

  #read(text: string): void {
    const { maxLineLength, batchTimeout } = this.#options;
    const lines = (this.#rest + text).split(lineEnd);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#add(line);
    for (; this.#rest.length > maxLineLength; this.#rest = this.#rest.slice(maxLineLength))
      this.#add(this.#rest.slice(0, maxLineLength));
    this.#deliver();
    if (this.#lines.length > 0) {
      this.#timer ??= this.#context.clock.after(batchTimeout, () => {
        this.#timer = undefined;
        this.#due = true;
        this.#deliver();
      });
    }
    if (!this.#asked && !this.#stopping) this.#child?.stdout?.pause();
  }

  #add(line: string): void {
    const { maxLineLength } = this.#options;
    for (let at = 0; at === 0 || at < line.length; at += maxLineLength)
      this.#lines.push(event(line.slice(at, at + maxLineLength)));
  }

  /** Answers `pull` if there is a batch. Emitting may ask again at once. */
  #deliver(): void {
    const { batchSize } = this.#options;
    while (this.#asked && this.#lines.length >= (this.#due ? 1 : batchSize)) {
      this.#asked = false;
      const batch = this.#lines.splice(0, batchSize);
      if (this.#lines.length === 0) this.#waitAgain();
      this.#emitter.emit(batch);
    }
  }

  #waitAgain(): void {
    this.#due = false;
    this.#context.clock.cancel(this.#timer);
    this.#timer = undefined;
  }

  #finish(failure: Error | undefined, how: number | string | null): void {
    const { command, restart, restartThrottle, batchSize } = this.#options;
    const { clock, log, name } = this.#context;
    const last = this.#rest.replace(/\r$/, '');
    if (this.#rest !== '') this.#add(last);
    this.#rest = '';
    // The last lines do not wait to be asked for: there will be no more of them.
    this.#waitAgain();
    while (this.#lines.length > 0) this.#emitter.emit(this.#lines.splice(0, batchSize));
    this.#asked = false;
    if (this.#stopping) return;
    if (failure !== undefined || how !== 0)
      log.warn(
        `${name}: the command ${failure === undefined ? `ended with ${how}` : `does not run: ${failure.message}`}.`,
      );
    if (restart) this.#restart = clock.after(restartThrottle, () => this.#run());
    else if (failure === undefined) this.#emitter.complete();
    else
      this.#emitter.fail(
        new MillraceError('MR_SOURCE_FAILED', `cannot run "${command}": ${failure.message}`, { cause: failure }),
      );
  }
}

/** Signals the command and whatever it started. */
const signal = (child: ChildProcess, name: NodeJS.Signals): void => {
  try {
    if (child.pid !== undefined && process.platform !== 'win32') process.kill(-child.pid, name);
    else child.kill(name);
  } catch {
    // It is gone already.
  }
};
