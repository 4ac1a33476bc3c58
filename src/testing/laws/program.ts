/**
 * Programs: what happens to a component under test, as plain data that fast-check can make, shrink and print.
 *
 * @module
 */
import type fc from 'fast-check';
import type { Outcome } from '../../core/delivery.ts';
import type { Draft } from './book.ts';
import type { FastCheck } from './law.ts';

/** Numbers like `at` address what there is, modulo how much of it there is. */
export type Command =
  | { readonly do: 'put'; readonly input: number; readonly drafts: readonly Draft[]; readonly asBlock: boolean }
  /** Settles an unsettled delivery; `failed` names events by their places, null means all. */
  | { readonly do: 'settle'; readonly at: number; readonly as: Outcome; readonly failed: readonly number[] | null }
  /** Settles a delivery that was settled before. */
  | { readonly do: 'again'; readonly at: number; readonly as: Outcome }
  /** Settles a delivery that was overtaken, or whose session is over. */
  | { readonly do: 'stale'; readonly at: number; readonly as: Outcome }
  /** What a consumer does with each delivery from within `next`. */
  | { readonly do: 'mode'; readonly at: number; readonly mode: 'hold' | 'ack' | 'nack' }
  | { readonly do: 'wait'; readonly ms: number }
  /** As long as patience lasts, without settling anything. */
  | { readonly do: 'quiet' }
  /** A consumer unsubscribes; or one more subscribes. */
  | { readonly do: 'leave'; readonly at: number }
  | { readonly do: 'join' }
  /** Ends the session at once and begins the next. */
  | { readonly do: 'reopen' }
  /** The destination breaks, or works again. */
  | { readonly do: 'down' }
  | { readonly do: 'up' };

export interface Program {
  /** For jitter. */
  readonly seed: number;
  readonly window: { readonly deliveries: number; readonly events: number; readonly bytes: number };
  readonly commands: readonly Command[];
  /** The input ends while there is still something outstanding. */
  readonly endsEarly: boolean;
}

/** How often each command comes; those left out never do. */
export type Weights = Partial<Record<Command['do'], number>>;

const outcomes = ['ack', 'nack', 'reject'] as const;

export const commandOf = (check: FastCheck, weights: Weights, outcome: readonly Outcome[] = outcomes) => {
  const at = check.nat(7);
  const as = check.constantFrom(...outcome);
  const draft = check.record({ size: check.nat(30), filler: check.nat(255), head: check.nat(3) });
  const places = check.option(check.array(check.nat(7), { maxLength: 3 }));
  const made: { [K in Command['do']]: fc.Arbitrary<Extract<Command, { do: K }>> } = {
    put: check.record({
      do: check.constant('put'),
      input: check.nat(3),
      drafts: check.array(draft, { minLength: 1, maxLength: 6, size: 'max' }),
      asBlock: check.constantFrom(false, false, true),
    }),
    settle: check.record({ do: check.constant('settle'), at, as, failed: places }),
    again: check.record({ do: check.constant('again'), at, as }),
    stale: check.record({ do: check.constant('stale'), at, as }),
    mode: check.record({
      do: check.constant('mode'),
      at,
      mode: check.constantFrom('hold', 'ack', ...(outcome.includes('nack') ? (['nack'] as const) : [])),
    }),
    wait: check.record({ do: check.constant('wait'), ms: check.constantFrom(1, 20, 150, 1500) }),
    quiet: check.record({ do: check.constant('quiet') }),
    leave: check.record({ do: check.constant('leave'), at }),
    join: check.record({ do: check.constant('join') }),
    reopen: check.record({ do: check.constant('reopen') }),
    down: check.record({ do: check.constant('down') }),
    up: check.record({ do: check.constant('up') }),
  };
  const choices = (Object.entries(weights) as [Command['do'], number][]).filter(([, weight]) => weight > 0);
  return check.oneof(...choices.map(([name, weight]) => ({ arbitrary: made[name] as fc.Arbitrary<Command>, weight })));
};

/** Windows small enough to be used up. */
export const windowOf = (check: FastCheck) =>
  check.record({
    deliveries: check.integer({ min: 1, max: 4 }),
    events: check.constantFrom(1, 5, 1000),
    bytes: check.constantFrom(50, 10_000),
  });

export const programOf = (
  check: FastCheck,
  weights: Weights,
  outcome?: readonly Outcome[],
  length = 40,
): fc.Arbitrary<Program> =>
  check.record({
    seed: check.nat(),
    window: windowOf(check),
    commands: check.array(commandOf(check, weights, outcome), { maxLength: length, size: 'max' }),
    endsEarly: check.boolean(),
  });

const printed = (command: Command): string => {
  switch (command.do) {
    case 'put':
      return `put ${command.drafts.length}${command.asBlock ? ' as a block' : ''}${command.input > 0 ? ` into ${command.input}` : ''}`;
    case 'settle':
      return `${command.as} ${command.at}${command.failed === null ? '' : ` only [${command.failed.join()}]`}`;
    case 'again':
    case 'stale':
      return `${command.do} ${command.as} ${command.at}`;
    case 'mode':
      return `${command.mode} from within ${command.at}`;
    case 'wait':
      return `wait ${command.ms}`;
    case 'leave':
      return `leave ${command.at}`;
    default:
      return command.do;
  }
};

/** A program on one line, for people. */
export const print = ({ window, commands, endsEarly }: Program): string =>
  `window ${JSON.stringify(window)}: ${[...commands.map(printed), endsEarly ? 'end' : 'ack all, put 1, ack it, end'].join(', ')}`;
