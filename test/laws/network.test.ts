import { once } from 'node:events';
import { request } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { Observable } from 'rxjs';
import { describe, test } from 'vitest';
import type { Delivery } from '../../src/core/delivery.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { httpSource } from '../../src/sources/http.ts';
import { netcatSource } from '../../src/sources/netcat.ts';
import { sourceLaws, type SourceSpec, type SourceTuning } from '../../src/testing/index.ts';

/** A source that listens, and the address at which its present session does. */
const listening = (make: (listening: (address: AddressInfo) => void) => Observable<Delivery>) => {
  let tell: (address: AddressInfo) => void;
  let address: Promise<AddressInfo>;
  const inner = make(where => tell(where));
  const source = new Observable<Delivery>(subscriber => {
    address = new Promise(resolve => (tell = resolve));
    return inner.subscribe(subscriber);
  });
  return { source, port: async () => (await address).port };
};

const netcat = (tuning: SourceTuning) => {
  const { source, port } = listening(tell => netcatSource({ port: 0, listening: tell, ...tuning }));
  const confirmed: FlumeEvent[] = [];
  let client = { to: 0, socket: undefined as Socket | undefined, sent: [] as FlumeEvent[] };

  /** Connected to the present session. */
  const connected = async () => {
    const to = await port();
    if (client.to === to) return client;
    client.socket?.destroy();
    const socket = connect(to, '127.0.0.1').on('error', () => undefined);
    const sent: FlumeEvent[] = [];
    let answers = 0;
    createInterface(socket).on('line', answer => {
      if (answer === 'OK') confirmed.push(sent[answers]!);
      answers++;
    });
    await once(socket, 'connect');
    return (client = { to, socket, sent });
  };
  return {
    source,
    async feed(events: readonly FlumeEvent[]) {
      const { socket, sent } = await connected();
      sent.push(...events);
      for (const { body } of events) socket?.write(`${body.toString()}\n`);
    },
    confirmed: () => confirmed,
    close: () => void client.socket?.destroy(),
  };
};

const http = (tuning: SourceTuning) => {
  const { source, port } = listening(tell => httpSource({ port: 0, listening: tell, ...tuning }));
  const confirmed: FlumeEvent[] = [];
  return {
    source,
    async feed(events: readonly FlumeEvent[]) {
      const post = request({ port: await port(), method: 'POST', agent: false });
      post.on('error', () => undefined);
      post.on('response', response => {
        response.resume();
        if (response.statusCode === 200) confirmed.push(...events);
      });
      post.end(JSON.stringify(events.map(({ headers, body }) => ({ headers, body: body.toString() }))));
      await once(post, 'finish');
    },
    confirmed: () => confirmed,
  };
};

const specs: SourceSpec[] = [
  // A connection has one delivery at a time.
  { name: 'netcat', make: netcat, headers: false, maxInFlight: { deliveries: 1 } },
  { name: 'http', make: http, order: 'none' },
].map(spec => ({ ...spec, clock: 'real', bodies: 'lines', replayable: false, reports: true }) as SourceSpec);

describe.each(specs)('$name', spec => {
  for (const law of sourceLaws(spec)) test.concurrent(law.name, () => law.run());
});
