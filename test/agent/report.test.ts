import { describe, expect, test } from 'vitest';
import { printProblems, problemLimit, Problems, problemsAsJson, type Place } from '../../src/agent/report.ts';

const place = (text: string, column: number, length = 1, line = 12): Place => ({
  file: 'flume.conf',
  line,
  column,
  length,
  text,
});
const line = 'a1.sources.r1.port = abc';

const problems = new Problems();
problems.warn(place('a1.sources.r1.prot = 1', 15, 4, 13), 'a1.sources.r1.prot is not an option of netcat', {
  suggestion: 'port',
});
problems.error(place(line, 22, 3), 'a1.sources.r1.port is "abc"', { expected: 'a port, 0–65535' });
problems.error(undefined, 'there is no such file', { file: 'more.conf', code: 'MR_IO', advice: 'Check -f.' });

describe('for people', () => {
  test('as compilers print it, by file and line, with a count', () => {
    expect(printProblems(problems.all)).toBe(`flume.conf:12:22: error: a1.sources.r1.port is "abc"
  a1.sources.r1.port = abc
                       ^^^
  expected a port, 0–65535
flume.conf:13:15: warning: a1.sources.r1.prot is not an option of netcat
  a1.sources.r1.prot = 1
                ^^^^
  did you mean "port"?
more.conf: error: there is no such file
  Check -f.
2 errors, 1 warning`);
  });

  test('a problem without a file, and no problem at all', () => {
    const one = new Problems();
    one.warn(undefined, 'nothing to do');
    expect(printProblems(one.all)).toBe('warning: nothing to do\n1 warning');
    expect(printProblems([])).toBe('no problems found');
  });

  test('colours only when asked', () => {
    const escape = '\u001b[';
    expect(printProblems(problems.all)).not.toContain(escape);
    expect(printProblems(problems.all, { colour: true })).toContain(`${escape}31;1merror:${escape}0m`);
  });

  const excerpt = (at: Place): string[] => {
    const one = new Problems();
    one.error(at, 'x');
    return printProblems(one.all).split('\n').slice(1, 3);
  };

  test('a tab before the place is a tab before the caret', () => {
    expect(excerpt(place('\ta =\t1', 6))).toEqual(['  \ta =\t1', '  \t   \t^']);
  });

  test('a long line is cut around the place', () => {
    const [shown, carets] = excerpt(place(`${'x'.repeat(5000)}HERE${'y'.repeat(5000)}`, 5001, 4));
    expect(shown!.length).toBeLessThan(130);
    expect(shown!.slice(carets!.indexOf('^'), carets!.lastIndexOf('^') + 1)).toBe('HERE');
  });

  test('a place behind the end of its line still has a caret', () => {
    expect(excerpt(place('a =', 9, 100))[1]).toMatch(/^ {2,}\^$/);
  });

  test('nothing from the file reaches the terminal as a command', () => {
    const one = new Problems();
    one.error(place('a = \u001b[2J\u009b1m', 5), 'found \u001b[2J', { suggestion: '\u001b[1m', expected: '\u0007' });
    expect(printProblems(one.all)).not.toMatch(/[\0-\x09\x0b-\x1f\x7f-\x9f]/);
  });
});

test('a note says where it is from, and counts as no problem', () => {
  const one = new Problems();
  one.add('note', place('a1.sinks.k1.kafka.topic = t', 25), 'topic t has 6 partitions');
  expect(printProblems(one.all)).toBe('flume.conf:12:25: note: topic t has 6 partitions\nno problems found');
  expect(JSON.parse(problemsAsJson(one.all))).toMatchObject({ errors: 0, warnings: 0, notes: 1 });
});

describe('for programs', () => {
  test('every member is there, in file order', () => {
    expect(JSON.parse(problemsAsJson(problems.all))).toEqual({
      errors: 2,
      warnings: 1,
      notes: 0,
      problems: [
        {
          severity: 'error',
          code: 'MR_CONFIG',
          file: 'flume.conf',
          line: 12,
          column: 22,
          length: 3,
          text: line,
          message: 'a1.sources.r1.port is "abc"',
          expected: 'a port, 0–65535',
          suggestion: null,
          advice: null,
        },
        expect.objectContaining({ severity: 'warning', line: 13, suggestion: 'port' }),
        expect.objectContaining({ code: 'MR_IO', file: 'more.conf', line: null, text: null, advice: 'Check -f.' }),
      ],
    });
    expect(JSON.parse(problemsAsJson([]))).toEqual({ errors: 0, warnings: 0, notes: 0, problems: [] });
  });
});

test('problems are bounded, and an error is never lost behind warnings', () => {
  const many = new Problems();
  for (let i = 0; i < 3 * problemLimit; i++) many.warn(undefined, `w${i}`);
  expect(many.errors).toBe(0);
  many.error(undefined, 'the one that counts');
  expect(many.all).toHaveLength(problemLimit + 1);
  expect(many.all[problemLimit - 1]?.message).toBe('there are more warnings; they are not shown');
  expect(many.errors).toBe(1);
  expect(many.all.at(-1)?.severity).toBe('error');
});
