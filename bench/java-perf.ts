/**
 * Kafka's own ProducerPerformance and ConsumerPerformance as processes: what a client is compared with.
 *
 * @module
 */
import { kafkaTool, type KafkaTool } from './kafka.ts';
import type { Running } from './processes.ts';

/** What a tool says of itself at its end. */
export interface PerfResult {
  readonly records: number;
  readonly recordsPerSecond: number;
}

export interface JavaPerf extends Running {
  /** Rejects when the tool ends otherwise. */
  readonly result: Promise<PerfResult>;
}

const tool = async (name: string, args: readonly string[], find: (output: string) => PerfResult | undefined) => {
  const running = await kafkaTool({ main: `org.apache.kafka.tools.${name}`, args } satisfies KafkaTool);
  const result = running.exited.then(code => {
    const found = find(running.output());
    if (code === 0 && found !== undefined) return found;
    throw new Error(`${name} ended with ${code}.\n${running.output()}`);
  });
  // Whoever does not await it still sees no unhandled rejection.
  result.catch(() => undefined);
  return { ...running, result };
};

const numbers = (match: RegExpExecArray | null): PerfResult | undefined =>
  match === null ? undefined : { records: Number(match[1]), recordsPerSecond: Number(match[2]) };

export const javaPerf = {
  /** Writes as fast as it can. `properties` are those of its producer; by default acks=all, idempotent, batches of 16 KiB. */
  producer: (options: {
    readonly bootstrap: readonly string[];
    readonly topic: string;
    readonly records: number;
    /** Bytes of a value. */
    readonly size: number;
    readonly properties?: Readonly<Record<string, string | number>>;
  }): Promise<JavaPerf> => {
    const { bootstrap, topic, records, size, properties = {} } = options;
    const what = ['--topic', topic, '--num-records', `${records}`, '--record-size', `${size}`, '--throughput', '-1'];
    const more = Object.entries(properties).flatMap(([name, value]) => ['--command-property', `${name}=${value}`]);
    const args = ['--bootstrap-server', bootstrap.join(','), ...what, ...more];
    // "N records sent, R records/sec": in between of the last seconds, at the end of all.
    return tool('ProducerPerformance', args, output =>
      numbers(/.*^(\d+) records sent, ([\d.]+) records\/sec/ms.exec(output)),
    );
  },

  /** Reads a topic from its beginning until it had so many. Its rate leaves out the time to join the group. */
  consumer: (options: {
    readonly bootstrap: readonly string[];
    readonly topic: string;
    readonly records: number;
  }): Promise<JavaPerf> => {
    const { bootstrap, topic, records } = options;
    const args = ['--bootstrap-server', bootstrap.join(','), '--topic', topic, '--num-records', `${records}`];
    // start, end, MB, MB/s, records, records/s, ms of the rebalance, ms of fetching, MB/s of that, records/s of that
    return tool('ConsumerPerformance', [...args, '--hide-header', '--timeout', '60000'], output =>
      numbers(/^\d+-\d+-\d+ [^,]+, [^,]+, [^,]+, [^,]+, (\d+), [^,]+, [^,]+, [^,]+, [^,]+, ([\d.]+)/m.exec(output)),
    );
  },
};
