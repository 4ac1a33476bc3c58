import fc from 'fast-check';
import { event, headers } from 'millrace';
import { flowLaws } from 'millrace/testing';
import { describe, expect, test } from 'vitest';
import { isPageView, pageView, pageViews, withoutQuery } from './page-views.ts';

// The pipeline, between a source and a sink that do everything that can happen: batches of any size, waits, nacks and rejects,
// a lookup that is slow or throws, a source that breaks and comes back, stops and aborts in the middle of it. Nothing may be lost,
// invented, reordered or delivered twice without a reason; it may never hang; and the books must balance. A failure shows the
// smallest program that breaks the law, and law.run({ seed, path }) plays it again.
describe('page views', () => {
  const laws = flowLaws(
    ({ mayWait, mayThrow }) =>
      pageViews(async session => {
        await mayWait();
        mayThrow();
        return `user of ${session}`;
      }),
    {
      name: 'page views',
      event: n =>
        event(n % 4 === 0 ? `GET /healthz/${n}` : `GET /page/${n}?token=${n}`, headers({ session: `s${n % 7}` })),
      expect: request => (isPageView(request) ? [pageView(request, `user of ${request.headers['session']!}`)] : []),
    },
  );
  for (const law of laws) test(law.name, () => law.run());
});

// What a function does to one event needs no flow.
test('no query survives', () => {
  fc.assert(
    fc.property(fc.webUrl({ withQueryParameters: true, withFragments: true }), url => {
      expect(withoutQuery(`GET ${url} HTTP/1.1`)).not.toContain('?');
    }),
  );
});
