/**
 * What an agent shows over HTTP: `/metrics` with Flume's keys (every value a string, as Flume has it),
 * `/metrics/prometheus`, `/healthz` (the process works) and `/readyz` (every component runs).
 *
 * @module
 */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Ledger } from '../core/ledger.ts';
import type { Metrics } from '../core/metrics.ts';
import { listen } from '../protocols/listen.ts';

/** What the monitor asks of an agent. */
export interface Monitored {
  readonly metrics: Metrics;
  /** The books of each flow, by name. */
  readonly ledgers: ReadonlyMap<string, Ledger>;
  /** Components that do not run now, with the reason. */
  readonly troubles: ReadonlyMap<string, string>;
}

export interface MonitorOptions {
  readonly port: number;
  readonly bind?: string;
}

export interface Monitor {
  readonly address: AddressInfo;
  close(): Promise<void>;
}

/** Serves until it is closed. @throws MR_ADDRESS_IN_USE */
export const serveMetrics = async (agent: Monitored, { port, bind = '0.0.0.0' }: MonitorOptions): Promise<Monitor> => {
  const server = createServer((request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 403, 'text/plain', 'only GET\n');
    const [path] = (request.url ?? '/').split('?');
    switch (path) {
      case '/metrics':
        return answer(response, 200, 'application/json;charset=utf-8', JSON.stringify(asFlume(agent)));
      case '/metrics/prometheus':
        return answer(response, 200, 'text/plain; version=0.0.4; charset=utf-8', asPrometheus(agent));
      case '/healthz':
        return answer(response, 200, 'application/json', '{"status":"ok"}\n');
      case '/readyz': {
        const troubles = Object.fromEntries(agent.troubles);
        const ready = agent.troubles.size === 0;
        return answer(response, ready ? 200 : 503, 'application/json', `${JSON.stringify({ ready, troubles })}\n`);
      }
      case '/':
        return answer(response, 200, 'text/html; charset=utf-8', index);
      default:
        return answer(
          response,
          404,
          'text/plain',
          'not found: try /metrics, /metrics/prometheus, /healthz or /readyz\n',
        );
    }
  });
  const address = await listen(server, { port, bind });
  return {
    address,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};

const index = `<!doctype html><title>millrace</title><ul>${['/metrics', '/metrics/prometheus', '/healthz', '/readyz']
  .map(path => `<li><a href="${path}">${path}</a>`)
  .join('')}</ul>\n`;

const answer = (response: ServerResponse, status: number, type: string, body: string): void => {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
};

/** One object per component under `TYPE.name`, and one per flow for its books; all values are strings. */
export const asFlume = ({
  metrics,
  ledgers,
}: Pick<Monitored, 'metrics' | 'ledgers'>): Record<string, Record<string, string>> => {
  const all: Record<string, Record<string, string>> = {};
  for (const [key, counters] of Object.entries(metrics.snapshot())) {
    all[key] = { ...inText(counters), Type: key.slice(0, key.indexOf('.')) };
  }
  for (const [name, ledger] of ledgers) all[`FLOW.${name}`] = { ...inText(ledger.snapshot()), Type: 'FLOW' };
  return all;
};

const inText = (counters: Record<string, number>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(counters).map(([key, value]) => [
      key,
      key.endsWith('Percentage') && Number.isInteger(value) ? `${value}.0` : String(value),
    ]),
  );

/** `EventPutSuccessCount` of `CHANNEL.c1` → `millrace_channel_event_put_success_total{component="c1"}`. */
export const asPrometheus = ({ metrics, ledgers, troubles }: Monitored): string => {
  const series = new Map<string, { type: string; lines: string[] }>();
  const add = (name: string, type: string, label: string, value: number) => {
    const one = series.get(name) ?? { type, lines: [] };
    series.set(name, one);
    one.lines.push(`${name}{${label}} ${value}`);
  };
  for (const [key, counters] of Object.entries(metrics.snapshot())) {
    const [kind, name] = [key.slice(0, key.indexOf('.')), key.slice(key.indexOf('.') + 1)];
    for (const [counter, value] of Object.entries(counters)) {
      const gauge = !counter.endsWith('Count') || counter.startsWith('Open');
      const metric = `millrace_${kind.toLowerCase()}_${snake(counter.replace(/Count$/, ''))}${gauge ? '' : '_total'}`;
      add(metric, gauge ? 'gauge' : 'counter', `component="${quoted(name)}"`, value);
    }
  }
  for (const [name, ledger] of ledgers) {
    for (const [column, value] of Object.entries(ledger.snapshot())) {
      const gauge = column === 'held';
      add(
        `millrace_flow_${snake(column)}${gauge ? '' : '_total'}`,
        gauge ? 'gauge' : 'counter',
        `flow="${quoted(name)}"`,
        value,
      );
    }
  }
  add('millrace_components_down', 'gauge', 'agent="all"', troubles.size);
  return Array.from(series, ([name, { type, lines }]) => `# TYPE ${name} ${type}\n${lines.join('\n')}\n`).join('');
};

const snake = (name: string): string => name.replace(/(?<=[a-z0-9])[A-Z]/g, letter => `_${letter}`).toLowerCase();

const quoted = (label: string): string => label.replace(/[\\"\n]/g, found => (found === '\n' ? '\\n' : `\\${found}`));
