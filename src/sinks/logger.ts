/**
 * Events as readable lines: Flume's `logger`.
 *
 * @module
 */
import { z } from 'zod';
import { defineSink } from '../core/component.ts';
import type { FlumeEvent, Headers } from '../core/event.ts';
import { code, int } from '../core/options.ts';

/** Where the lines go: standard output, or anything that can be written to and says when it is full. */
export interface Output {
  write(text: string, written: (error?: Error | null) => void): unknown;
  readonly isTTY?: boolean;
}

const options = z.object({
  maxBytesToLog: int('Most bytes of a body to show.', { default: 16, min: 0, unit: 'bytes' }),
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
  open: ({ maxBytesToLog, output = process.stdout }) => {
    const dim = output.isTTY === true ? (text: string) => `\u001b[2m${text}\u001b[22m` : (text: string) => text;
    return {
      write: ({ events }) =>
        new Promise((resolve, reject) => {
          const lines = events.map(event => line(event, maxBytesToLog, dim)).join('');
          output.write(lines, error => (error == null ? resolve() : reject(error)));
        }),
    };
  },
});

/** As Flume prints it: `Event: { headers:{k=v} body: 68 65 6C 6C 6F  hello }`. */
const line = ({ headers, body }: FlumeEvent, most: number, dim: (text: string) => string): string => {
  const shown = body.subarray(0, most);
  if (shown.length === 0) return `${dim('Event: { headers:')}${inBraces(headers)}${dim(' body: }')}\n`;
  const bytes = Array.from(shown, byte => byte.toString(16).toUpperCase().padStart(2, '0')).join(' ');
  const columns = bytes.padEnd(3 * most - 1);
  return `${dim('Event: { headers:')}${inBraces(headers)}${dim(` body: ${columns} `)}${asText(shown)}${dim(' }')}\n`;
};

const inBraces = (headers: Headers): string =>
  `{${Object.entries(headers)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ')
    .replace(/\p{Cc}/gu, '.')}}`;

/** Nothing that a terminal would obey gets through, here and above. */
const asText = (bytes: Buffer): string => bytes.toString('latin1').replace(/[^\x20-\x7e]/g, '.');
