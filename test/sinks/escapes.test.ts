import { hostname } from 'node:os';
import { describe, expect, it } from 'vitest';
import { headers } from '../../src/core/event.ts';
import { escapes } from '../../src/sinks/escapes.ts';

/** In local time, as escapes are. */
const time = new Date(2024, 4, 3, 13, 46, 33, 250);
const timed = headers({ timestamp: String(time.getTime()), app: 'web', 'a.b-c': 'x' });

describe('an escape', () => {
  it.each([
    ['plain', 'plain'],
    ['%{app}-%{a.b-c}-%{none}', 'web-x-'],
    ['%{app}%{app}', 'webweb'],
    ['100%%', '100%'],
    ['%Y-%m-%d %H:%M:%S', '2024-05-03 13:46:33'],
    ['%n-%e', '5-3'],
    ['%a %A %b %B', 'Fri Friday May May'],
    ['%c', 'Fri May 3 13:46:33 2024'],
    ['%D %I %j %k %p %y', '05/03/24 01 124 13 PM 24'],
    ['%s', String(Math.floor(time.getTime() / 1000))],
    ['%t', String(time.getTime())],
    ['%[localhost]', hostname()],
    ['%{constructor}', ''],
    ['100 %', '100 %'],
    ['%{not a header}', '%{not a header}'],
  ])('%s', (text, expected) => {
    expect(escapes(text)(timed)).toBe(expected);
  });

  it('has the zone of this machine', () => {
    expect(escapes('%z')(timed)).toMatch(/^[+-]\d{4}$/);
  });

  it('is refused if there is no such thing', () => {
    expect(() => escapes('%q')).toThrow('there is no escape %q; expected %{header} or % and one of aAb');
    expect(() => escapes('%[host]')).toThrow('there is no escape %[host]; expected %[localhost]');
  });

  it.each([{}, { timestamp: 'today' }, { timestamp: '' }])('of time needs one, unlike %j', head => {
    expect(() => escapes('x%Y')(headers(head as Record<string, string>))).toThrow(
      expect.objectContaining({
        code: 'MR_BAD_INPUT',
        message: expect.stringContaining('%Y needs the header timestamp') as string,
      }),
    );
  });
});
