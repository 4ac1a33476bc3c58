/**
 * Flume's escapes: text in which `%{header}`, `%[localhost]` and `%Y` stand for what an event, this machine and the event's time say.
 *
 * @module
 */
import { hostname, networkInterfaces } from 'node:os';
import { MillraceError } from '../core/errors.ts';
import type { Headers } from '../core/event.ts';

/** The text for an event with these headers. */
export type Escaped = (headers: Headers) => string;

const two = (value: number): string => String(value).padStart(2, '0');
const english = (options: Intl.DateTimeFormatOptions): ((time: Date) => string) => {
  const format = new Intl.DateTimeFormat('en-US', options);
  return time => format.format(time);
};
const shortDay = english({ weekday: 'short' });
const shortMonth = english({ month: 'short' });
const hour12 = (time: Date): number => time.getHours() % 12 || 12;
const clockTime = (time: Date): string => [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':');
const dayOfYear = (time: Date): number =>
  (Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) - Date.UTC(time.getFullYear(), 0, 0)) / 86_400_000;
const zone = (time: Date): string => {
  const minutes = -time.getTimezoneOffset();
  return `${minutes < 0 ? '-' : '+'}${two(Math.floor(Math.abs(minutes) / 60))}${two(Math.abs(minutes) % 60)}`;
};

/** Letters for the time in the header `timestamp`, in local time. */
const letters: Readonly<Record<string, (time: Date) => string>> = {
  a: shortDay,
  A: english({ weekday: 'long' }),
  b: shortMonth,
  B: english({ month: 'long' }),
  c: time => `${shortDay(time)} ${shortMonth(time)} ${time.getDate()} ${clockTime(time)} ${String(time.getFullYear())}`,
  d: time => two(time.getDate()),
  D: time => [time.getMonth() + 1, time.getDate(), time.getFullYear() % 100].map(two).join('/'),
  e: time => String(time.getDate()),
  H: time => two(time.getHours()),
  I: time => two(hour12(time)),
  j: time => String(dayOfYear(time)).padStart(3, '0'),
  k: time => String(time.getHours()),
  m: time => two(time.getMonth() + 1),
  M: time => two(time.getMinutes()),
  n: time => String(time.getMonth() + 1),
  p: time => (time.getHours() < 12 ? 'AM' : 'PM'),
  s: time => String(Math.floor(time.getTime() / 1000)),
  S: time => two(time.getSeconds()),
  t: time => String(time.getTime()),
  y: time => two(time.getFullYear() % 100),
  Y: time => String(time.getFullYear()),
  z: zone,
};

const address = (): string =>
  Object.values(networkInterfaces())
    .flat()
    .find(one => one?.internal === false && one.family === 'IPv4')?.address ?? '127.0.0.1';
const machine: Readonly<Record<string, () => string>> = { localhost: hostname, fqdn: hostname, ip: address };

const wrong = (what: string) => new MillraceError('MR_CONFIG', what);

const timeOf = (headers: Headers, escape: string): Date => {
  const { ['timestamp']: given = '' } = headers;
  const time = new Date(/^-?\d{1,16}$/.test(given) ? Number(given) : NaN);
  if (Number.isNaN(time.getTime()))
    throw new MillraceError(
      'MR_BAD_INPUT',
      `${escape} needs the header timestamp, in ms since 1970, and the event has ${given === '' ? 'none' : JSON.stringify(given.slice(0, 40))}. A timestamp interceptor sets it.`,
    );
  return time;
};

const part = (escape: string): string | Escaped => {
  const [, letter = '', header, of] = /^%(?:([\w%])|\{(.*)\}|\[(.*)\])$/.exec(escape) ?? [];
  if (header !== undefined) return headers => (Object.hasOwn(headers, header) ? (headers[header] as string) : '');
  if (of !== undefined) {
    const known = machine[of.toLowerCase()];
    if (known === undefined) throw wrong(`there is no escape ${escape}; expected %[localhost], %[IP] or %[FQDN]`);
    return known();
  }
  if (letter === '%') return '%';
  const format = Object.hasOwn(letters, letter) ? letters[letter] : undefined;
  if (format === undefined)
    throw wrong(`there is no escape ${escape}; expected %{header} or % and one of ${Object.keys(letters).join('')}`);
  return headers => format(timeOf(headers, escape));
};

/**
 * Makes of a text with escapes a function of headers. A header that is not there is empty.
 *
 * @throws MR_CONFIG for an escape that there is not. The function throws MR_BAD_INPUT for an event without a time, if there has to be one.
 */
export const escapes = (text: string): Escaped => {
  const parts = text
    .split(/(%[\w%]|%\{[\w.-]+\}|%\[\w+\])/)
    .map((piece, i) => (i % 2 === 0 ? piece : part(piece)))
    .filter(piece => piece !== '');
  if (parts.every(piece => typeof piece === 'string')) {
    const whole = parts.join('');
    return () => whole;
  }
  return headers => parts.map(piece => (typeof piece === 'string' ? piece : piece(headers))).join('');
};
