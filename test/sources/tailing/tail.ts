import type { SourceTuning } from '../../../src/core/component.ts';
/** A folder for each test, and flows that tail what is in it. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { Scope, inScope } from '../../../src/core/scope.ts';
import type { Disk } from '../../../src/core/disk.ts';
import type { FlumeEvent } from '../../../src/core/event.ts';
import { run, type Flow } from '../../../src/core/flow.ts';
import { createSink } from '../../../src/core/sink.ts';
import { taildirSource } from '../../../src/sources/taildir.ts';
import type { TaildirOptions } from '../../../src/sources/taildir.ts';
import { FakeClock, recordingLog } from '../../../src/testing/index.ts';

export let dir: string;
export const flows: Flow[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'taildir-'));
});
afterEach(async () => {
  await Promise.allSettled(flows.map(flow => flow.stop()));
  flows.length = 0;
  rmSync(dir, { recursive: true, force: true });
});

export const at = (...names: string[]) => join(dir, ...names);
export const positionFile = () => at('positions', 'p.json');
export const logs = () => `${dir}/.*\\.log`;
export const inode = (path: string) => statSync(path).ino;
export const positions = () =>
  JSON.parse(readFileSync(positionFile(), 'utf8') || '[]') as { inode: number; pos: number; file: string }[];
export const savePositions = (entries: { inode: number; pos: number; file: string }[]) => {
  mkdirSync(at('positions'), { recursive: true });
  writeFileSync(positionFile(), JSON.stringify(entries));
};

/** What came out of a tailing flow, and a way to wait for more of it. */
export class Tail {
  readonly flow: Flow;
  readonly events: FlumeEvent[] = [];
  readonly batches: (readonly FlumeEvent[])[] = [];
  readonly log = recordingLog();
  #changed = () => undefined as void;

  constructor(
    options: Partial<TaildirOptions> & Pick<SourceTuning, 'maxInFlight'> = {},
    write?: () => void | Promise<void>,
    clock?: FakeClock,
    disk?: Disk,
  ) {
    const scope = new Scope({ log: this.log, ...(clock && { clock }), ...(disk && { disk }) });
    const sink = createSink(async events => {
      await write?.();
      this.batches.push(events);
      this.events.push(...events);
      this.#changed();
    });
    const source = taildirSource({ filegroups: { f: logs() }, positionFile: positionFile(), ...options });
    this.flow = inScope(scope, () => run(source, sink));
    flows.push(this.flow);
  }

  get lines(): string[] {
    return this.events.map(({ body }) => body.toString('latin1'));
  }

  /** Resolves when that many lines are there. */
  async until(count: number): Promise<string[]> {
    while (this.events.length < count) await new Promise<void>(resolve => (this.#changed = resolve));
    return this.lines;
  }

  said(what: RegExp) {
    return this.log.entries.filter(({ message }) => what.test(message)).length;
  }

  async stop(): Promise<string[]> {
    await this.flow.stop();
    return this.lines;
  }
}
