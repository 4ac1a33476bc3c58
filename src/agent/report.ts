/**
 * What is wrong with a configuration, for people and for programs.
 *
 * @module
 */
import type { ErrorCode } from '../core/errors.ts';

/** A place in a file. Lines and columns count from 1. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** How many characters are meant. */
  readonly length: number;
  /** The line as it is in the file, with secrets masked. */
  readonly text: string;
}

/** One thing that is wrong. An error keeps an agent from starting, a warning does not; a note says what is well. */
export interface Problem {
  readonly severity: 'error' | 'warning' | 'note';
  readonly code: ErrorCode;
  /** What was found. */
  readonly message: string;
  /** What would have been right. */
  readonly expected?: string;
  /** What was probably meant, to stand in the place of what is marked. */
  readonly suggestion?: string;
  /** What to do, as a sentence. */
  readonly advice?: string;
  /** Absent when no file is to blame, or a whole one. */
  readonly place?: Place;
  /** The file, where there is no place in it. */
  readonly file?: string;
}

/** Problems of one severity that are kept; nobody reads more, and a hostile file could make millions. */
export const problemLimit = 1000;

type More = Partial<Pick<Problem, 'code' | 'expected' | 'suggestion' | 'advice' | 'file'>>;

/** Where problems are written down. */
export class Problems {
  readonly all: Problem[] = [];
  readonly #counts = { error: 0, warning: 0, note: 0 };

  /** How many errors there were, kept or not. */
  get errors(): number {
    return this.#counts.error;
  }

  error(place: Place | undefined, message: string, more: More = {}): void {
    this.add('error', place, message, more);
  }

  warn(place: Place | undefined, message: string, more: More = {}): void {
    this.add('warning', place, message, more);
  }

  add(severity: Problem['severity'], place: Place | undefined, message: string, more: More = {}): void {
    const count = ++this.#counts[severity];
    if (count < problemLimit) {
      this.all.push({ severity, code: 'MR_CONFIG', message, ...(place && { place }), ...more });
    } else if (count === problemLimit) {
      this.all.push({ severity, code: 'MR_CONFIG', message: `there are more ${severity}s; they are not shown` });
    }
  }
}

/** What is expected, where there is a choice. */
export const oneOf = (choices: readonly string[]): string =>
  choices.length > 1 ? `one of ${choices.join(', ')}` : (choices[0] ?? 'one that exists');

/** By file in order of first mention, then by line. */
export const inFileOrder = (problems: readonly Problem[]): Problem[] => {
  const files = [...new Set(problems.map(fileOf))];
  const rank = (p: Problem): readonly number[] => [
    files.indexOf(fileOf(p)),
    p.place?.line ?? Infinity,
    p.place?.column ?? Infinity,
  ];
  return problems
    .map(problem => ({ problem, rank: rank(problem) }))
    .sort((a, b) => {
      const at = a.rank.findIndex((n, i) => n !== b.rank[i]);
      return at === -1 ? 0 : (a.rank[at] ?? 0) < (b.rank[at] ?? 0) ? -1 : 1;
    })
    .map(({ problem }) => problem);
};

const fileOf = (problem: Problem): string => problem.place?.file ?? problem.file ?? '';

/** How much of a long line is shown around the caret. */
const shownWidth = 120;

/** Control characters of a hostile file must not reach a terminal. */
const printable = (text: string): string => text.replace(/(?!\t)[\p{Cc}\p{Cf}\p{Cs}]/gu, '\u{fffd}');

/** The line and, under it, a caret under the place. */
const excerpt = ({ text, column, length }: Place): readonly [string, string] => {
  const from = text.length <= shownWidth ? 0 : Math.max(0, column - 1 - shownWidth / 2);
  const line = printable((from > 0 ? '…' : '') + text.slice(from, from + shownWidth));
  const before = column - 1 - from + (from > 0 ? 1 : 0);
  const carets = '^'.repeat(Math.max(1, Math.min(length, line.length - before)));
  return [line, line.slice(0, before).replace(/[^\t]/g, ' ') + carets];
};

const tints: Readonly<Record<Problem['severity'], string>> = { error: '31;1', warning: '33;1', note: '32;1' };

export interface ReportOptions {
  /** Colours, for a terminal. */
  readonly colour?: boolean;
}

/**
 * Problems as compilers print them, with a last line that counts them:
 *
 *     flume.conf:12:22: error: a1.sources.r1.port is "abc"
 *       a1.sources.r1.port = abc
 *                            ^^^
 *       expected a port, 0–65535
 */
export const printProblems = (problems: readonly Problem[], { colour = false }: ReportOptions = {}): string => {
  const paint = (code: string, text: string): string => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
  const lines = inFileOrder(problems).flatMap(({ severity, message, expected, suggestion, advice, place, file }) => {
    const where = place === undefined ? file : `${place.file}:${place.line}:${place.column}`;
    const tint = tints[severity];
    const found = `${paint(tint, `${severity}:`)} ${printable(message)}`;
    const block = [where === undefined ? found : `${paint('1', `${printable(where)}:`)} ${found}`];
    if (place !== undefined && severity !== 'note') {
      const [line, carets] = excerpt(place);
      block.push(`  ${line}`, `  ${paint(tint, carets)}`);
    }
    if (expected !== undefined) block.push(`  expected ${printable(expected)}`);
    if (suggestion !== undefined) block.push(`  did you mean "${printable(suggestion)}"?`);
    if (advice !== undefined) block.push(`  ${printable(advice)}`);
    return block;
  });
  return [...lines, paint('1', summary(problems))].join('\n');
};

const countsOf = (problems: readonly Problem[]) => {
  const of = (severity: Problem['severity']) => problems.filter(problem => problem.severity === severity).length;
  return { errors: of('error'), warnings: of('warning'), notes: of('note') };
};

const counted = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

const summary = (problems: readonly Problem[]): string => {
  const { errors, warnings } = countsOf(problems);
  if (errors === 0 && warnings === 0) return 'no problems found';
  return [errors > 0 && counted(errors, 'error'), warnings > 0 && counted(warnings, 'warning')]
    .filter(Boolean)
    .join(', ');
};

/**
 * The same as JSON, for editors and CI. This shape only grows:
 *
 *     { "errors": 1, "warnings": 0, "notes": 0, "problems": [{
 *         "severity": "error", "code": "MR_CONFIG",
 *         "file": "flume.conf", "line": 12, "column": 22, "length": 3, "text": "a1.sources.r1.port = abc",
 *         "message": "a1.sources.r1.port is \"abc\"", "expected": "a port, 0–65535",
 *         "suggestion": null, "advice": null }] }
 *
 * Every member is always there; what is not known is null.
 */
export const problemsAsJson = (problems: readonly Problem[]): string =>
  JSON.stringify(
    {
      ...countsOf(problems),
      problems: inFileOrder(problems).map(({ severity, code, message, expected, suggestion, advice, place, file }) => ({
        severity,
        code,
        file: place?.file ?? file ?? null,
        line: place?.line ?? null,
        column: place?.column ?? null,
        length: place?.length ?? null,
        text: place?.text ?? null,
        message,
        expected: expected ?? null,
        suggestion: suggestion ?? null,
        advice: advice ?? null,
      })),
    },
    undefined,
    2,
  );
