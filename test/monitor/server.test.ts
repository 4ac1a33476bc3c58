import { afterEach, describe, expect, it } from 'vitest';
import { Ledger } from '../../src/core/ledger.ts';
import { channelCounters, Metrics, sourceCounters } from '../../src/core/metrics.ts';
import { serveMetrics, type Monitor, type Monitored } from '../../src/monitor/server.ts';

const agent = () => {
  const metrics = new Metrics();
  metrics.register('SOURCE', 'r1', { ...sourceCounters(), EventReceivedCount: 12 });
  metrics.register('CHANNEL', 'c1', {
    ...channelCounters(),
    ChannelSize: 3,
    ChannelCapacity: 100,
    ChannelFillPercentage: 3,
  });
  const ledger = new Ledger();
  ledger.accepted = 12;
  ledger.delivered = 9;
  ledger.hold(() => 3);
  return { metrics, ledgers: new Map([['c1', ledger]]), troubles: new Map<string, string>() } satisfies Monitored;
};

let monitor: Monitor | undefined;
afterEach(() => monitor?.close());

const serve = async (monitored: Monitored = agent()) => {
  monitor = await serveMetrics(monitored, { port: 0, bind: '127.0.0.1' });
  return (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${monitor!.address.port}${path}`, init);
};

describe('monitor', () => {
  it("serves Flume's keys, every value a string", async () => {
    const get = await serve();
    const response = await get('/metrics');
    expect(response.headers.get('content-type')).toBe('application/json;charset=utf-8');
    const body = (await response.json()) as Record<string, Record<string, string>>;
    expect(body['SOURCE.r1']).toMatchObject({ EventReceivedCount: '12', EventAcceptedCount: '0', Type: 'SOURCE' });
    expect(body['CHANNEL.c1']).toMatchObject({ ChannelSize: '3', ChannelFillPercentage: '3.0', Type: 'CHANNEL' });
    expect(body['FLOW.c1']).toMatchObject({ accepted: '12', delivered: '9', held: '3', copied: '0' });
    expect(
      Object.values(body)
        .flatMap(Object.values)
        .every(value => typeof value === 'string'),
    ).toBe(true);
  });

  it('serves Prometheus text that parses line by line', async () => {
    const get = await serve();
    const text = await (await get('/metrics/prometheus')).text();
    expect(text).toContain(
      '# TYPE millrace_source_event_received_total counter\nmillrace_source_event_received_total{component="r1"} 12\n',
    );
    expect(text).toContain('millrace_channel_channel_size{component="c1"} 3');
    expect(text).toContain('millrace_flow_held{flow="c1"} 3');
    for (const line of text.trimEnd().split('\n'))
      expect(line).toMatch(/^(# TYPE [a-z_]+ (counter|gauge)|[a-z_]+\{[a-z]+="[^"]*"\} -?[\d.e+]+)$/);
  });

  it('says whether it lives and whether everything runs', async () => {
    const monitored = agent();
    const get = await serve(monitored);
    expect((await get('/healthz')).status).toBe(200);
    expect((await get('/readyz')).status).toBe(200);
    monitored.troubles.set('r1', 'port 1 is in use');
    const notReady = await get('/readyz');
    expect([notReady.status, await notReady.json()]).toEqual([
      503,
      { ready: false, troubles: { r1: 'port 1 is in use' } },
    ]);
  });

  it('answers everything else with a hint', async () => {
    const get = await serve();
    expect((await get('/')).headers.get('content-type')).toContain('text/html');
    expect((await get('/nothing')).status).toBe(404);
    expect((await get('/metrics', { method: 'POST', body: 'x' })).status).toBe(403);
  });
});
