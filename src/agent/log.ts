/**
 * The agent's log: JSON lines by pino on standard error, pretty on a terminal. Events go to standard output.
 *
 * @module
 */
import { pino, type Logger } from 'pino';
import pretty from 'pino-pretty';
import type { Log } from '../core/scope.ts';

/** A log for people if standard error is a terminal, for machines otherwise. */
export const agentLog = ({
  terminal = process.stderr.isTTY,
  level = 'info',
}: { terminal?: boolean; level?: string } = {}): Log => {
  const destination = terminal
    ? pretty({ destination: 2, sync: true, colorize: true, translateTime: 'SYS:HH:MM:ss.l', ignore: 'pid,hostname' })
    : pino.destination({ dest: 2, sync: true });
  return asLog(pino({ level, base: null }, destination));
};

const asLog = (logger: Logger): Log => ({
  info: (message, fields = {}) => logger.info(fields, message),
  warn: (message, fields = {}) => logger.warn(withoutStack(fields), message),
  error: (message, fields = {}) => logger.error(withoutStack(fields), message),
});

/** The message has the cause's words already; a stack is for programmers, and only noise to whoever runs an agent. */
const withoutStack = ({ cause, ...fields }: { cause?: unknown }): object =>
  cause instanceof Error && 'code' in cause ? { ...fields, code: cause.code } : fields;
