import { expect, test } from 'vitest';
import { MillraceError, type ErrorCode } from '../../../src/core/errors.ts';
import { Troubles } from '../../../src/protocols/kafka/troubles.ts';

const recorded = () => {
  const told: string[] = [];
  const troubles = new Troubles({
    trouble: ({ message }) => void told.push(message),
    recovered: () => void told.push('over'),
  });
  const raise = (about: string, code: ErrorCode, message: string) =>
    troubles.raise(about, new MillraceError(code, message));
  return { troubles, told, raise };
};

test('the same kind of trouble is told once, whatever it is about, and that it is over when all of it is', () => {
  const { troubles, told, raise } = recorded();
  raise('t-0', 'MR_KAFKA_UNREACHABLE', 'one is away');
  raise('t-1', 'MR_KAFKA_UNREACHABLE', 'another is away');
  raise('t-0', 'MR_KAFKA_UNREACHABLE', 'it is still away');
  troubles.over('t-0');
  troubles.over('t-0');
  expect(told).toEqual(['one is away']);
  troubles.over('t-1');
  expect(told).toEqual(['one is away', 'over']);
});

test('what was told last and is over makes room for what is still wrong', () => {
  const { troubles, told, raise } = recorded();
  raise('topics', 'MR_KAFKA_UNKNOWN_TOPIC', 'no topic');
  raise('group', 'MR_KAFKA_LOGIN', 'no login');
  troubles.over('group');
  expect(told).toEqual(['no topic', 'no login', 'no topic']);
  raise('group', 'MR_KAFKA_LOGIN', 'no login');
  troubles.over('topics');
  expect(told.slice(3)).toEqual(['no login']);
  troubles.over('group');
  expect(told.slice(4)).toEqual(['over']);
});

test('nothing is told any more when it is to be silent', () => {
  const { troubles, told, raise } = recorded();
  raise('group', 'MR_KAFKA', 'wrong');
  troubles.silent = true;
  raise('topics', 'MR_KAFKA_LOGIN', 'wrong, too');
  troubles.over('group');
  expect(told).toEqual(['wrong']);
});
