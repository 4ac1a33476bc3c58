import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Batch, headers, noHeaders, type Headers } from '../../src/core/event.ts';
import { Draft, type Put } from '../../src/log/draft.ts';
import { sumOf } from '../../src/log/format.ts';
import type { Place } from '../../src/log/log.ts';
import { decodePayload } from '../../src/log/payload.ts';
import type { Segment } from '../../src/log/segment.ts';

/** One read of a file. */
const read = (lines: readonly string[], under: Headers = noHeaders): Batch => {
  let end = -1;
  const ends = Uint32Array.from(lines, line => (end += line.length + 1));
  return Batch.ofBlock({ bytes: Buffer.from(lines.map(line => `${line}\n`).join('')), ends, headers: under });
};

const putOf = (batch: Batch): Put => ({ batch, done: () => undefined, failed: () => undefined });

const linesOf = (batch: Batch): string[] => batch.events.map(({ body }) => body.toString());

const finished = (draft: Draft) => {
  const { payload, sum } = draft.finish();
  expect(sum).toBe(sumOf(payload.pieces));
  return decodePayload(payload.kind, draft.count, Buffer.concat(payload.pieces));
};

const line = fc.string({ unit: 'grapheme-ascii', maxLength: 20 });

test('pieces of one read are one frame: what comes out is the read, nothing of it is copied', () => {
  fc.assert(
    fc.property(
      fc.array(line, { minLength: 2, maxLength: 30 }),
      fc.array(fc.nat(), { maxLength: 5 }),
      (lines, cuts) => {
        let rest = read(lines, headers({ file: 'a' }));
        const whole = rest.block?.bytes as Buffer;
        const pieces: Batch[] = [];
        for (const cut of cuts) {
          if (rest.length < 2) break;
          const [first, others] = rest.split(1 + (cut % (rest.length - 1)));
          pieces.push(first);
          rest = others;
        }
        pieces.push(rest);
        const draft = new Draft(putOf(pieces[0]!));
        for (const piece of pieces.slice(1)) expect(draft.join(putOf(piece))).toBe(true);
        expect(draft.byteLength).toBe(read(lines, headers({ file: 'a' })).byteLength);
        const batch = finished(draft);
        expect(linesOf(batch)).toEqual(lines);
        expect(batch.events[0]?.headers).toEqual({ file: 'a' });
        const [bytes] = draft.finish().payload.pieces as [Buffer];
        expect([bytes.buffer, bytes.byteOffset, bytes.length]).toEqual([whole.buffer, whole.byteOffset, whole.length]);
      },
    ),
  );
});

describe('what does not join', () => {
  const [first, second] = read(['a', 'b', 'c']).split(1);
  const joins = (one: Batch, other: Batch) => new Draft(putOf(one)).join(putOf(other));

  test.each<[string, Batch, Batch]>([
    ['another read', first, read(['b', 'c'])],
    ['the piece before', second, first],
    ['other headers', first, Batch.ofBlock({ ...second.block!, headers: headers({ x: 'y' }) })],
    ['events that are no block', first, Batch.of([{ headers: noHeaders, body: Buffer.from('b') }])],
    ['a block, to events', Batch.of(first.events), second],
    ['another source', first.upTo({ key: 'a', value: '1' }), second.upTo({ key: 'b', value: '2' })],
    ['a source that is unknown', first.upTo({ key: 'a', value: '1' }), second],
  ])('%s', (_, one, other) => expect(joins(one, other)).toBe(false));

  test('more than a frame should have', () => {
    const [one, other] = read(['x'.repeat(400_000), 'y'.repeat(200_000)]).split(1);
    expect(joins(one, other)).toBe(false);
    const [little, more] = read(['x'.repeat(200_000), 'y'.repeat(200_000)]).split(1);
    expect(joins(little, more)).toBe(true);
  });

  test('anything, when it is finished', () => {
    const draft = new Draft(putOf(first));
    draft.finish();
    expect(draft.join(putOf(second))).toBe(false);
  });
});

test('the offset of a frame is that of its last put', () => {
  const [first, second] = read(['a', 'b', 'c']).split(1);
  const draft = new Draft(putOf(first.upTo({ key: 'f', value: '1' })));
  expect(draft.join(putOf(second.upTo({ key: 'f', value: '3' })))).toBe(true);
  expect(draft.sourceOffset).toEqual({ key: 'f', value: '3' });
});

test('each put is told where it is, or why it is not', () => {
  const [first, second] = read(['a', 'bc', 'd']).split(1);
  const told: unknown[] = [];
  const put = (batch: Batch): Put => ({
    batch,
    done: ({ seq, bytesBefore, frame, offset }) => told.push([seq, bytesBefore, frame, offset]),
    failed: cause => told.push(cause.message),
  });
  const draft = new Draft(put(first));
  draft.join(put(second));
  const frame: Place = { seq: 7, bytesBefore: 100, segment: {} as Segment, offset: 128, frame: 7 };
  draft.done(frame);
  draft.failed(new Error('no'));
  expect(told).toEqual([[7, 100, 7, 128], [8, 101, 7, 128], 'no', 'no']);
});
