import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignors, type Member } from '../../../src/protocols/kafka/assignors.ts';

const names = (given: ReturnType<NonNullable<(typeof assignors)[string]>>) =>
  Object.fromEntries([...given].map(([id, of]) => [id, of.map(({ topic, partition }) => `${topic}${partition}`)]));
const all = (...topics: string[]) => topics;

describe('sharing out partitions', () => {
  // The examples in the documentation of RangeAssignor and RoundRobinAssignor.
  it('by range is as in Java', () => {
    const members = [
      { id: 'C1', topics: all('t', 'u') },
      { id: 'C0', topics: all('t', 'u') },
    ];
    const counts = new Map([
      ['t', 3],
      ['u', 3],
    ]);
    expect(names(assignors['range']!(members, counts))).toEqual({
      C0: ['t0', 't1', 'u0', 'u1'],
      C1: ['t2', 'u2'],
    });
  });

  it('by turns is as in Java', () => {
    const counts = new Map([
      ['t', 1],
      ['u', 2],
      ['v', 3],
    ]);
    const members = [
      { id: 'C0', topics: all('t') },
      { id: 'C1', topics: all('t', 'u') },
      { id: 'C2', topics: all('t', 'u', 'v') },
    ];
    expect(names(assignors['roundrobin']!(members, counts))).toEqual({
      C0: ['t0'],
      C1: ['u0'],
      C2: ['u1', 'v0', 'v1', 'v2'],
    });
  });

  it.each(Object.entries(assignors))('%s gives every partition to one member that wants it', (_, assignor) => {
    const topic = fc.constantFrom('a', 'b', 'c', 'd');
    const member = fc.uniqueArray(topic).map(topics => ({ topics }));
    const counts = fc.uniqueArray(fc.tuple(topic, fc.nat(7)), { selector: ([name]) => name });
    fc.assert(
      fc.property(fc.array(member, { minLength: 1, maxLength: 6 }), counts, (some, counted) => {
        const members: Member[] = some.map(({ topics }, index) => ({ id: `m${index}`, topics }));
        const given = assignor(members, new Map(counted));
        expect([...given.keys()].sort()).toEqual(members.map(({ id }) => id));
        const seen: string[] = [];
        for (const { id, topics } of members)
          for (const { topic: name, partition } of given.get(id)!) {
            expect(topics).toContain(name);
            seen.push(`${name}${partition}`);
          }
        const wanted = counted
          .filter(([name]) => members.some(({ topics }) => topics.includes(name)))
          .flatMap(([name, count]) => Array.from({ length: count }, (_, partition) => `${name}${partition}`));
        expect(seen.sort()).toEqual(wanted.sort());
      }),
    );
  });
});
