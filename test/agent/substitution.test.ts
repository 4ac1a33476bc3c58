import { homedir } from 'node:os';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseProperties } from '../../src/agent/properties.ts';
import { printProblems, Problems } from '../../src/agent/report.ts';
import { applyConfigFilters, runCommand, substitute, substitutionLimits } from '../../src/agent/substitution.ts';

const env = {
  FOO: 'foo',
  REC: 'r${which}',
  EMPTY: '',
  HOME_EU: '/eu',
  DB_PASSWORD: 'hunter2',
  A: '${env:B}',
  B: '${env:A}',
};
const system = { foo: 'sysfoo', site: 'EU', 'my.secret': 'hunter2' };

const resolve = (text: string, more: Record<string, string> = {}) => {
  const problems = new Problems();
  const entries = parseProperties(Buffer.from(text), 'flume.conf', problems);
  const { entries: resolved, used } = substitute(entries, { env, system: { ...system, ...more } }, problems);
  const values = Object.fromEntries([...resolved].map(([key, { value }]) => [key, value]));
  return { values, used, problems: problems.all, resolved };
};

/** The value of `x`, with a few keys around that it may refer to. */
const value = (text: string, more?: Record<string, string>) => resolve(`which = FOO\nx = ${text}\n`, more);

describe('variables', () => {
  test.each([
    ['${env:FOO}', 'foo'],
    ['${sys:foo}', 'sysfoo'],
    ['${sys:user.home}', homedir()],
    ['a${which}b', 'aFOOb'],
    ['${env:${which}}', 'foo'],
    ['${env:HOME_${sys:site}}/x', '/eu/x'],
    ['${env:REC}', 'rFOO'],
    ['${env:NOPE:-other}', 'other'],
    ['${nokey:-${which}}', 'FOO'],
    ['${nokey:-}', ''],
    ['${env:EMPTY:-d}[${env:EMPTY}]', '[]'],
    ['$${env:FOO} and $${which}', '${env:FOO} and ${which}'],
    ['$$x $5', '$$x $5'],
  ])('%s is %s', (text, expected) => {
    const { values, problems } = value(text);
    expect(values['x']).toBe(expected);
    expect(problems).toEqual([]);
  });

  test('another key may come before or after, and refer to a third', () => {
    const { values, used } = resolve('a = ${b}\nb = <${c.d}>\nc.d = 1\ne = ${b}');
    expect(values).toEqual({ a: '<1>', b: '<1>', 'c.d': '1', e: '<1>' });
    expect([...used].sort()).toEqual(['b', 'c.d']);
  });

  test('a bare name is an environment variable only when Flume was told so', () => {
    const told = { propertiesImplementation: 'org.apache.flume.node.EnvVarResolverProperties' };
    expect(value('${FOO} ${which}', told).values['x']).toBe('foo FOO');
    const { values, problems } = value('${FOO}');
    expect(values['x']).toBe('${FOO}');
    expect(problems).toMatchObject([{ severity: 'warning', suggestion: '${env:FOO}' }]);
  });

  test.each([
    ['${env:NOPE}', 'there is no environment variable NOPE'],
    ['${sys:nope}', '-Dnope was not given'],
    ['${nokey} tail ${which}', 'no key is called nokey'],
    ['${no${which}}', 'no key is called noFOO'],
    ['${ env:FOO }', 'no key is called  env:FOO '],
    ['${}', 'no key is called '],
    ['${date:yyyy}', 'the lookup date is not built in'],
    ['${script:javascript:3+4}', 'the lookup script is not built in'],
    ['${constructor}', 'no key is called constructor'],
    ['${env:constructor}', 'there is no environment variable constructor'],
  ])('%s stays as it is, with a warning', (text, why) => {
    const { values, problems } = value(text);
    expect(values['x']).toBe(text.replace('${which}}', '${which}}').replace(/ \$\{which\}$/, ' FOO'));
    expect(problems).toMatchObject([{ severity: 'warning', place: { line: 2, column: 5 } }]);
    expect(problems[0]?.message).toContain(`stays as it is: ${why}`);
  });

  test('the warning marks the expression, and suggests a key that is close', () => {
    const { problems } = resolve('data.dir = /d\nx = a ${data.dri} b');
    expect(problems).toMatchObject([{ place: { line: 2, column: 7, length: 11 }, suggestion: '${data.dir}' }]);
  });

  test('one that is never closed', () => {
    const { values, problems } = value('a ${env:FOO');
    expect(values['x']).toBe('a ${env:FOO');
    expect(problems).toMatchObject([{ severity: 'warning', message: 'a ${ in x is never closed' }]);
  });
});

describe('what never ends', () => {
  test.each([
    ['x = ${x}', 'x refers to itself: x → x'],
    ['a = ${b}\nb = ${c}\nc = ${a}', 'a refers to itself: a → b → c → a'],
    ['x = ${env:A}', 'env:A refers to itself: env:A → env:B → env:A'],
    ['x = ${y${x}}', 'x refers to itself: x → x'],
  ])('%j is one error', (text, message) => {
    expect(
      resolve(text)
        .problems.filter(p => p.severity === 'error')
        .map(p => p.message),
    ).toEqual([message]);
  });

  test('long chains and deep nesting are bounded', () => {
    const chain = Array.from({ length: 10_000 }, (_, i) => `k${i} = \${k${i + 1}}`).join('\n');
    expect(resolve(chain).problems.some(p => p.message.includes('nests more than 50'))).toBe(true);
    const nested = `x = ${'${'.repeat(5000)}a${'}'.repeat(5000)}`;
    expect(resolve(nested).problems.some(p => p.message.includes('nests more than 50'))).toBe(true);
    expect(substitutionLimits.depth).toBe(50);
  });

  test('doubling is bounded', () => {
    const laughs = Array.from({ length: 40 }, (_, i) => `k${i} = \${k${i + 1}}\${k${i + 1}}`).join('\n');
    const { problems } = resolve(`${laughs}\nk40 = ha`);
    expect(problems.some(p => p.severity === 'error' && p.message.includes('grows beyond 100000'))).toBe(true);
  });
});

describe('secrets', () => {
  test('what came from a secret is marked, and no message has it', () => {
    const { resolved, problems } = resolve(
      [
        'a = ${env:DB_PASSWORD}',
        'b = ${a}',
        'c = ${env:${sys:my.secret}}',
        'd.password = ab${cd',
        'e.password = ${literal}',
        'f = ${env:FOO}',
      ].join('\n'),
    );
    const marked = [...resolved.values()].filter(entry => entry.secret).map(entry => entry.key);
    expect(marked).toEqual(['a', 'b', 'd.password', 'e.password']);
    expect(JSON.stringify(problems) + printProblems(problems)).not.toMatch(/hunter2|ab\$|literal/);
    expect(problems).toHaveLength(3);
  });
});

describe('for all texts', () => {
  const part = fc.constantFrom('${', '}', '$', 'env:', 'sys:', 'FOO', 'x', 'y', ':-', 'f1[k]', ' ');
  const text = fc.array(part, { maxLength: 25 }).map(parts => parts.join(''));

  test('it ends, and gives text', () => {
    fc.assert(
      fc.property(text, text, (x, y) => {
        const { values } = resolve(`x = .${x}\ny = .${y}`);
        expect(typeof values['x']).toBe('string');
      }),
      { numRuns: 2000 },
    );
  });

  test('text without ${ is left alone', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[!-#%-~]*$/), text => {
        const { values, problems } = resolve(`x = .${text.replaceAll('\\', '')}`);
        expect(values['x']).toBe(`.${text.replaceAll('\\', '')}`);
        expect(problems).toEqual([]);
      }),
    );
  });
});

describe('config filters', () => {
  const filter = async (text: string, run = runCommand) => {
    const problems = new Problems();
    const entries = parseProperties(Buffer.from(text), 'flume.conf', problems);
    const { entries: resolved } = substitute(entries, { env, system }, problems);
    const filtered = await applyConfigFilters('a1', resolved, { env, system }, problems, run);
    return { entry: filtered.get('a1.sources.r1.x'), problems: problems.all };
  };
  const withEnv = 'a1.configfilters = f1\na1.configfilters.f1.type = env\n';

  test.each(["${f1['FOO']}", '${f1["FOO"]}', '${f1[FOO]}', "a${f1[FOO]}${f1['FOO']}b"])('env: %s', async text => {
    const { entry, problems } = await filter(`${withEnv}a1.sources.r1.x = ${text}`);
    expect(entry?.value).toBe(text.replaceAll(/\$\{[^}]*\}/g, 'foo'));
    expect(entry?.secret).toBe(true);
    expect(problems).toEqual([]);
  });

  test('the class name works as well, and the value is taken as it is', async () => {
    const type = 'org.apache.flume.configfilter.EnvironmentVariableConfigFilter';
    const { entry } = await filter(
      `a1.configfilters = f1\na1.configfilters.f1.type = ${type}\na1.sources.r1.x = \${f1[REC]}`,
    );
    expect(entry?.value).toBe('r${which}');
  });

  test.each([
    ['x${f1[\'FOO"]}', 'FOO with quotes of two kinds'],
    ['${f1[FO O]}', 'a space'],
  ])('%s is no use of a filter (%s)', async text => {
    const { entry, problems } = await filter(`${withEnv}a1.sources.r1.x = ${text}`);
    expect(entry?.value).toBe(text);
    expect(problems).toMatchObject([{ severity: 'warning' }]);
  });

  test('no value is an error that says which', async () => {
    const { entry, problems } = await filter(`${withEnv}a1.sources.r1.x = a \${f1[NOPE]}`);
    expect(entry?.value).toBe('a ${f1[NOPE]}');
    expect(problems).toMatchObject([
      {
        severity: 'error',
        message: 'f1 has no value for NOPE: there is no such environment variable',
        place: { line: 3, column: 21, length: 11 },
      },
    ]);
  });

  test('an unknown filter is an error with a suggestion', async () => {
    const { problems } = await filter(`${withEnv}a1.sources.r1.x = \${f2[FOO]}`);
    expect(problems).toMatchObject([{ severity: 'error', message: 'there is no config filter f2', suggestion: 'f1' }]);
  });

  test('another agent has its own', async () => {
    const { entry } = await filter(
      `${withEnv.replaceAll('a1.', 'a2.')}a1.sources.r1.x = 1\na2.sources.r1.x = \${f1[FOO]}`,
    );
    expect(entry?.value).toBe('1');
  });

  const external = (command: string, more = '') =>
    `a1.configfilters = f1\na1.configfilters.f1.type = External\na1.configfilters.f1.command = ${command}\n${more}a1.sources.r1.x = \${f1['key-1']}`;

  test('external: the first line that the command prints for the key', async () => {
    const { entry, problems } = await filter(external('printf %s\\\\nmore\\\\n'));
    expect(entry?.value).toBe('key-1');
    expect(problems).toEqual([]);
  });

  test('external: in its character set, and once per key', async () => {
    const asked: string[][] = [];
    const { entry } = await filter(
      `${external('secrets get', 'a1.configfilters.f1.charset = ISO-8859-1\n')} \${f1[key-1]} \${f1[two]}`,
      async words => {
        asked.push([...words]);
        return { output: Buffer.from('caf\u00e9', 'latin1') };
      },
    );
    expect(entry?.value).toBe('café café café');
    expect(asked).toEqual([
      ['secrets', 'get', 'key-1'],
      ['secrets', 'get', 'two'],
    ]);
  });

  test.each([
    ['false', 'the command ended with status 1'],
    ['/no/such/command', 'the command cannot run (ENOENT)'],
    ['true', 'the command printed nothing'],
  ])('external: %s is an error', async (command, why) => {
    const { problems } = await filter(external(command));
    expect(problems).toMatchObject([{ severity: 'error', message: `f1 has no value for key-1: ${why}` }]);
  });

  test.each([
    ['a1.configfilters = f1', 'a1.configfilters.f1 has no type'],
    ['a1.configfilters = f1\na1.configfilters.f1.type = external', 'a1.configfilters.f1 has no command'],
    ['a1.configfilters = f1\na1.configfilters.f1.type = envv', 'there is no config filter envv'],
    [
      'a1.configfilters = f1\na1.configfilters.f1.type = external\na1.configfilters.f1.command = x\na1.configfilters.f1.charset = klingon',
      'klingon is not a known character set',
    ],
  ])('%j', async (text, message) => {
    // The filter is broken, so its use is not reported as well.
    const { problems } = await filter(`${text}\na1.sources.r1.x = \${f1[k]}`);
    expect(problems).toMatchObject([{ severity: 'error', message }]);
  });

  test('hadoop is real, but not built in', async () => {
    const { problems } = await filter('a1.configfilters = f1\na1.configfilters.f1.type = hadoop');
    expect(problems).toMatchObject([
      {
        code: 'MR_NOT_BUILT_IN',
        message:
          'the config filter hadoop (org.apache.flume.configfilter.HadoopCredentialStoreConfigFilter) is not built in yet',
        expected: 'one of env, external',
      },
    ]);
  });
});
