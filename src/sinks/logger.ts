/**
 * Events as readable lines: Flume's `logger`.
 *
 * @module
 */
import { z } from 'zod';
import { defineSink } from '../core/component.ts';
import type { FlumeEvent, Headers } from '../core/event.ts';
import { choice, code, int } from '../core/options.ts';

/** Where the lines go: standard output, or anything that can be written to and says when it is full. */
export interface Output {
  write(text: string, written: (error?: Error | null) => void): unknown;
  readonly isTTY?: boolean;
}

const options = z.object({
  maxBytesToLog: int('Most bytes of a body to show. Default 16, or 1000 as text.', {
    optional: true,
    min: 0,
    unit: 'bytes',
  }),
  format: choice(['flume', 'text'])(
    '`flume`: bytes in hexadecimal and as text. `text`: headers, if any, and the body as UTF-8.',
    {
      default: 'flume',
    },
  ),
  output: code<Output>()('Where to write; default standard output.', { optional: true }),
});
export type LoggerSinkOptions = z.input<typeof options>;

/**
 * Prints one line per event: its headers, and its first bytes in hexadecimal and as text.
 *
 * **acks** when the lines are written · **nacks** and **rejects** never · keeps order · colours only on a terminal.
 */
export const loggerSink = defineSink({
  type: 'logger',
  className: 'org.apache.flume.sink.LoggerSink',
  summary: 'Prints each event: headers, and the first bytes of the body.',
  options,
  open: ({ format, maxBytesToLog, output = process.stdout }) => {
    const dim = output.isTTY === true ? (text: string) => `\u001b[2m${text}\u001b[22m` : (text: string) => text;
    const line =
      format === 'text'
        ? (event: FlumeEvent) => textLine(event, maxBytesToLog ?? 1000, dim)
        : (event: FlumeEvent) => flumeLine(event, maxBytesToLog ?? 16, dim);
    return {
      write: ({ events }) =>
        new Promise((resolve, reject) => {
          output.write(events.map(line).join(''), error => (error == null ? resolve() : reject(error)));
        }),
    };
  },
});

type Paint = (text: string) => string;

/** `Event: { headers:{k=v} body: 68 65 6C 6C 6F  hello }`, as Flume prints it. */
const flumeLine = ({ headers, body }: FlumeEvent, most: number, dim: Paint): string => {
  const shown = body.subarray(0, most);
  const head = `${dim('Event: { headers:')}{${inText(headers)}}`;
  if (shown.length === 0) return `${head}${dim(' body: }')}\n`;
  const bytes = Array.from(shown, byte => byte.toString(16).toUpperCase().padStart(2, '0')).join(' ');
  const characters = shown.toString('latin1').replace(/[^\x20-\x7e]/g, '.');
  return `${head}${dim(` body: ${bytes.padEnd(3 * most - 1)} `)}${characters}${dim(' }')}\n`;
};

/** `{k=v} hello` */
const textLine = ({ headers, body }: FlumeEvent, most: number, dim: Paint): string => {
  const head = inText(headers);
  const shown = printable(body.toString('utf8', 0, most)) + (body.length > most ? '…' : '');
  return `${head === '' ? '' : dim(`{${head}} `)}${shown}\n`;
};

const inText = (headers: Headers): string =>
  printable(
    Object.entries(headers)
      .map(([key, value]) => `${key}=${value}`)
      .join(', '),
  );

/** Nothing that a terminal would obey gets through. */
const printable = (text: string): string => text.replace(/\p{Cc}/gu, '.');
