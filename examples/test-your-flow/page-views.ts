import { concatMap, filter, type Observable } from 'rxjs';
import { event, headers, intercept, memoryChannel, rebatch, type Delivery, type FlumeEvent } from 'millrace';

/** Says whose session it is; in production, a call over the network that may fail. */
export type Lookup = (session: string) => Promise<string>;

/** Health checks are not page views. */
export const isPageView = ({ body }: FlumeEvent): boolean => !body.toString().startsWith('GET /healthz');

/** Nobody needs the part of a query that may hold a password. */
export const withoutQuery = (request: string): string => request.replace(/\?\S*/, '');

export const pageView = (request: FlumeEvent, user: string): FlumeEvent =>
  event(withoutQuery(request.body.toString()), headers({ ...request.headers, user }));

/** Requests become page views: noise left out, users looked up, in batches for a database. */
export const pageViews = (lookup: Lookup) => (requests: Observable<Delivery>) =>
  requests.pipe(
    intercept(
      filter(isPageView),
      concatMap(async request => pageView(request, await lookup(request.headers['session'] ?? 'none'))),
    ),
    memoryChannel({ capacity: 1000 }),
    rebatch({ maxEvents: 100, maxDelay: 500 }),
  );
